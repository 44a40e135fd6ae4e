echo "hungry"
exec tail /dev/zero
