set -e
number=0
while [ "$number" -lt 2000 ]; do
    sleep 300 &
    number=$((number + 1))
done
wait
