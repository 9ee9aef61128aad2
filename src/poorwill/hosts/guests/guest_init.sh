#!/bin/sh
# Process 1 of a guest: mounts, modules, network, the clock agent, then the engine in the foreground.
# When the engine ends the machine ends, so that the host sees a dead engine as a dead process.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mkdir -p /dev/shm /tmp
/bin/busybox mount -t tmpfs shm /dev/shm
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox stty -onlcr </dev/console
echo "poorwill-guest: up"
case " $(/bin/busybox cat /proc/cmdline) " in
*" poorwill.probe "*) exec /bin/busybox reboot -f ;;
esac
for module in $(/bin/busybox cat /modules/order); do
  /bin/busybox insmod "/modules/$module.ko"
done
/bin/busybox ip link set lo up
/bin/busybox ip addr add 10.0.2.15/24 dev eth0
/bin/busybox ip link set eth0 up
. /guest.env
/usr/bin/python3 /agent.pyc &
echo "poorwill-guest: starting the engine"
/bin/busybox sh /engine.sh
echo "poorwill-guest: the engine ended with status $?"
/bin/busybox reboot -f
