set -eu
sleep "$(cat "${INPUT_DIR:-/input}/seconds")"
cp "${INPUT_DIR:-/input}/seconds" "${OUTPUT_DIR:-/output}/"
