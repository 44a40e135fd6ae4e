echo "asleep"
(trap '' TERM INT HUP; sleep 3600) &
trap '' TERM INT HUP
sleep 3600
