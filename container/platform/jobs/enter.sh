#!/bin/sh
# In a mount namespace of its own: show TREE as /opt/ml and HOSTS as /etc/hosts, then become the program.
# All of it is gone with the namespace; of the machine's own directories only a folder beside TREE was made.
#
#   enter.sh TREE HOSTS NAME PROGRAM ARGUMENT...
set -e
tree=$1 hosts=$2 name=$3
shift 3

if [ ! -d /opt/ml ]; then
    # A mount needs a place to be mounted on, and none shall be left on the machine's disk: /opt is laid out anew in memory.
    kept=$tree.opt
    mkdir -p "$kept"
    mount --rbind /opt "$kept"
    mount -t tmpfs -o mode=755,size=1m none /opt
    for one in "$kept"/* "$kept"/.[!.]*; do
        new=/opt/${one##*/}
        if [ -L "$one" ]; then
            cp -P "$one" "$new"
        elif [ -d "$one" ]; then
            mkdir "$new"
            mount --rbind "$one" "$new"
        elif [ -e "$one" ]; then
            : >"$new"
            mount --bind "$one" "$new"
        fi
    done
    mkdir /opt/ml
fi
mount --bind "$tree" /opt/ml
mount --bind "$hosts" /etc/hosts 2>/dev/null || true
hostname "$name" 2>/dev/null || true
exec "$@"
