# Inner shells expand what stands in single quotes.
# shellcheck disable=SC2016
model=${MODEL_DIR:-/model}
report=${OUTPUT_DIR:-/output}/report.txt

attempt() {
    name=$1
    shift
    if "$@" 2>/dev/null; then echo "$name: done"; else echo "$name: refused"; fi >> "$report"
}

attempt create sh -c ': > "$1/new.txt"' sh "$model"
attempt append sh -c 'echo more >> "$1/weights.txt"' sh "$model"
attempt remove rm "$model/weights.txt"
attempt rename mv "$model/weights.txt" "$model/other.txt"
attempt remount mount -o remount,rw "$model"
exit 0
