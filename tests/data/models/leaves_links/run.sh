set -eu
cd "${OUTPUT_DIR:-/output}"
mkdir -p folder
echo "kept" > kept.txt
echo "kept too" > folder/kept.txt
ln -s /etc/shadow shadow
ln -s / folder/root
ln -s kept.txt inside
mkfifo pipe
