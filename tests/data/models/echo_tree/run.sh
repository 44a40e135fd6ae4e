set -eu
cp -R "${INPUT_DIR:-/input}/." "${OUTPUT_DIR:-/output}/"
