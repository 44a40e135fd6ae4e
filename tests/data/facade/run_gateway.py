import argparse

from basic_inference_server import LIB_VER, FlaskGateway, Logger, get_packages

if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  parser.add_argument('-b', '--base_folder', type=str, default='.')
  parser.add_argument('-a', '--app_folder', type=str, default='_cache')
  parser.add_argument('--host', type=str, default='127.0.0.1')
  parser.add_argument('--port', type=int, default=5002)
  args = parser.parse_args()

  log = Logger(
    lib_name='APP',
    config_file='config_gateway.txt',
    base_folder=args.base_folder,
    app_folder=args.app_folder,
    TF_KERAS=False,
  )
  log.P("Gateway library {} with {} packages".format(LIB_VER, len(get_packages())), color='g')

  gtw = FlaskGateway(
    log=log,
    workers_location='endpoints',
    workers_suffix='Worker',
    host=args.host,
    port=args.port,
    first_server_port=args.port + 1,
    server_execution_path='/run',
  )
  log.P("The gateway is down", color='y')
