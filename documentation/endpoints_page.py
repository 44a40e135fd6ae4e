"""The page of the endpoints' file: the keys of an entry that the gateway reads, from the class that reads them."""

from online_gateway.endpoint_config import EndpointConfig

_INTRODUCTION = """\
What `infer up --endpoints FILE` and the gateway's `ENDPOINTS_FILE` name: JSON, as users of the microservice gateway
write it.

```json
{
  "SERVER_NAME": "Radiology",
  "NO_STARTUP_WAIT": false,
  "CONFIG_ENDPOINTS": {
    "house_prices": {"MODULE": "house_prices.py", "NR_WORKERS": 2, "BASE_PRICE": 40000},
    "modelhost": {"ENGINE": "onnx", "NR_WORKERS": 2},
    "iris": {"ENGINE": "onnx", "CONTENT": "iris.onnx"}
  }
}
```

`SERVER_NAME` stands in answers about the server. With `NO_STARTUP_WAIT`, `infer up` says that it is ready before its
endpoints are. Each name in `CONFIG_ENDPOINTS` is an endpoint; `modelhost` is none, but says how many workers serve ONNX
models. A Python endpoint's class is looked for in `MODULE`, else in `endpoints/NAME.py` beside the file. The gateway
reads these keys of an entry:

| key | default | |
|---|---|---|
"""
_REST = """
The whole entry reaches the endpoint's class as `self.context.config`, over the module's `_CONFIG` if it has one: every
other key is yours. The ONNX engine reads `THREADS`, 1 by default: how many a worker computes with. `infer up` leaves an
entry out where a Python module that its list `REQUIRES` names is missing.
"""


def endpoints_page(notice: str) -> str:
    """The page, its title above the notice that it is derived."""
    fields = [field for field in EndpointConfig.model_fields.values() if field.alias]
    rows = [f"| `{field.alias}` | {_default(field.default)} | {field.description} |\n" for field in fields]
    return "\n".join(["# The file of endpoints\n", notice, _INTRODUCTION + "".join(rows) + _REST])


def _default(value: object) -> str:
    if value is None or value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
