yes "a line of ninety-nine characters, so that a million of them and their newlines are 100 megabytes .." | head -c 100000000
echo
echo "the last line"
