import argparse
import json
import shutil
import threading
import urllib.request

from basic_inference_server import Logger


class DiskMonitor:
  def __init__(self, log):
    self.log = log
    self.config = log.config_data
    self.nr_posts = 0

  def execute(self):
    self.nr_posts += 1
    disk = shutil.disk_usage('/')
    data = {
      'SIGNATURE': self.config['SUPPORT_NAME'],
      'total_disk': round(disk.total / 1024**3, 2),
      'nr_posts': self.nr_posts,
      'ping_interval': self.config['PING_INTERVAL'],
    }
    url = 'http://{}:{}{}'.format(self.config['SERVER'], self.config['SERVER_PORT'], self.config['SERVER_PATH'])
    request = urllib.request.Request(
      url, data=json.dumps(data).encode(), headers={'Content-Type': 'application/json'}
    )
    try:
      urllib.request.urlopen(request, timeout=5).close()
    except OSError as exc:
      self.log.P("Could not deliver to {}: {}".format(url, exc), color='r')

  def run(self):
    pause = threading.Event()
    while not pause.wait(self.config['PING_INTERVAL']):
      self.execute()


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  parser.add_argument('--config_endpoint', type=str, default='{}', help='JSON configuration of the endpoint')
  args = parser.parse_args()

  log = Logger(lib_name='SPRC', base_folder='.', app_folder='_cache', TF_KERAS=False, max_lines=3000)
  log.update_config_data(json.loads(args.config_endpoint))
  log.P("Watching the disk every {}s".format(log.config_data['PING_INTERVAL']))
  DiskMonitor(log).run()
