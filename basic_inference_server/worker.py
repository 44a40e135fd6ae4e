"""The class behind the endpoint modules of the microservice gateway."""

from pathlib import Path
from typing import Any, Self

from basic_inference_server.logger import Logger
from online_worker.endpoint import Endpoint, EndpointContext, InvalidInput


class FlaskWorker(Endpoint):
    """Subclass it with ``_load_model``, ``_pre_process``, ``_predict`` and ``_post_process``.

    ``config_data`` is the module's ``_CONFIG`` with the endpoint's entry of the configuration file on top, and
    ``cfg_weight`` its WEIGHT. A constructor hands the keywords that it gets on as they are.
    """

    def __init__(self, *, context: EndpointContext, log: Logger, prefix_log: str = "") -> None:
        super().__init__(context)
        self.log = log
        self.prefix_log = prefix_log
        self.config_data: dict[str, Any] = dict(context.config)
        self._is_loaded = False

    @classmethod
    def create(cls, context: EndpointContext) -> Self:
        """Make an instance."""
        return cls(context=context, log=Logger(lib_name=context.name))

    def __getattr__(self, name: str) -> Any:
        """A key of the configuration as ``cfg_<key>``.

        In a constructor also what ``_load_model`` makes: where these modules come from, it ran before their own lines.
        """
        if name.startswith("cfg_"):
            key = name.removeprefix("cfg_")
            for candidate, value in reversed(self.config_data.items()):
                if candidate.lower() == key:
                    return value
        elif not name.startswith("__") and self.__dict__.get("_is_loaded") is False:
            self.load(None)
            return getattr(self, name)
        raise AttributeError(f"{type(self).__name__} has no {name}.")

    def load(self, content: Path | None) -> None:  # noqa: ARG002 - these modules know where their files are
        """Run ``_load_model``, once."""
        if not self._is_loaded:
            self._is_loaded = True
            self._load_model()

    def preprocess(self, inputs: dict[str, Any]) -> Any:
        """Run ``_pre_process``."""
        try:
            return self._pre_process(inputs)
        except Exception as error:
            self._tell_of(error, "_pre_process")
            raise

    def predict(self, prepared: Any) -> Any:
        """Run ``_predict``."""
        try:
            return self._predict(prepared)
        except Exception as error:
            self._tell_of(error, "_predict")
            raise

    def postprocess(self, prediction: Any) -> Any:
        """Run ``_post_process``."""
        try:
            return self._post_process(prediction)
        except Exception as error:
            self._tell_of(error, "_post_process")
            raise

    def P(self, s: object, color: str | None = None) -> None:  # noqa: N802 - a name that users write
        """Write a line behind the worker's prefix."""
        self.log.P(f"{self.prefix_log} {s}".lstrip(), color=color)

    def _load_model(self) -> None:
        """Make what ``_predict`` needs."""

    def _pre_process(self, inputs: dict[str, Any]) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement _pre_process.")

    def _predict(self, prep_inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement _predict.")

    def _post_process(self, pred: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement _post_process.")

    def _create_notification(self, notif: str, msg: object, **_: object) -> None:
        self.context.notify(str(notif), str(msg))

    def _tell_of(self, error: Exception, step: str) -> None:
        if not isinstance(error, InvalidInput):
            self._create_notification(notif="exception", msg=f"Exception in {step}: {type(error).__name__}: {error}")
