from basic_inference_server import FlaskWorker
from models.placeholder import PlaceholderModel

_CONFIG = {
  'LANGUAGE': 'en',
}

__WORKER_VER__ = '1.2.1'


class DummyModelDemo1Worker(FlaskWorker):
  def __init__(self, **kwargs):
    super(DummyModelDemo1Worker, self).__init__(prefix_log='[DUM1]', **kwargs)
    return

  def _load_model(self):
    self.nlp_model = PlaceholderModel(log=self.log)
    return

  def _pre_process(self, inputs):
    if 'INPUT_VALUE' not in inputs.keys():
      raise ValueError('INPUT_VALUE should be defined in inputs')
    return inputs['INPUT_VALUE'], inputs.get('LANGUAGE', self.cfg_language)

  def _predict(self, prep_inputs):
    word, lang = prep_inputs
    self._create_notification(
      notif='log',
      msg='Predicting on usr_input: {} using {}'.format(word, self.config_data['DESCRIPTION']),
    )
    return self.nlp_model.get_similar(word=word, lang=lang), prep_inputs

  def _post_process(self, pred):
    similar, (word, lang) = pred
    return {
      'similar': similar,
      'inputs': {'INPUT_VALUE': word, 'LANGUAGE': lang},
      'worker_ver': __WORKER_VER__,
    }
