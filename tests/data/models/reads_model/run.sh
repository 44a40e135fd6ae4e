set -eu
cp -R "${MODEL_DIR:-/model}/." "${OUTPUT_DIR:-/output}/"
