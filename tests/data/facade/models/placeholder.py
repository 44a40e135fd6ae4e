class PlaceholderModel:
  def __init__(self, log):
    self.log = log
    self.log.P("******** Using a model placeholder *********", color='r')

  def get_similar(self, word, lang):
    return "same-{}-always-{}".format(word, lang)
