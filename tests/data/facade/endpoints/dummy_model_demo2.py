import numpy as np

from basic_inference_server import FlaskWorker

_CONFIG = {
  'WEIGHT': 0,
  'BIAS': 0,
}


class DummyModelDemo2Worker(FlaskWorker):
  def __init__(self, **kwargs):
    super(DummyModelDemo2Worker, self).__init__(prefix_log='[DUM2]', **kwargs)
    self.nr_calls = 0
    return

  def _load_model(self):
    self.weights = np.array([self.cfg_weight, self.cfg_bias])
    return

  def _pre_process(self, inputs):
    return int(inputs['INPUT_VALUE'])

  def _predict(self, prep_inputs):
    self.nr_calls += 1
    return self.weights @ np.array([prep_inputs, 1])

  def _post_process(self, pred):
    return {'prediction': pred, 'calls': self.nr_calls}
