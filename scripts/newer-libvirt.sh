#!/usr/bin/env bash
# Unpacks the libvirt of Debian unstable, with all that its programs are linked with, into a folder of its own, for the tests
# that run with a newer libvirt than the one that is installed. Nothing of it is installed. Needs debootstrap, root, and the
# mirror that apt uses already (or MIRROR). Does nothing where the folder is there.
set -euo pipefail
folder=${1:-${SECTUNNEL_NEWER_LIBVIRT:-${HOME:-/root}/.cache/sectunnel/newer-libvirt}}
packages=libvirt-daemon,libvirt-daemon-driver-network,libvirt-daemon-driver-secret,libvirt-clients
[ ! -e "$folder/usr/sbin/libvirtd" ] || exit 0

mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)}
mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
debootstrap --download-only --variant=minbase --include="$packages" sid "$work/download" "$mirror" >"$work/log" 2>&1 ||
  { tail -n 5 "$work/log" >&2; exit 1; }
mkdir "$work/root"
# What is there before the others: links that they unpack through.
for package in "$work"/download/var/cache/apt/archives/base-files_*.deb "$work"/download/var/cache/apt/archives/*.deb; do
  dpkg-deb --extract "$package" "$work/root"
done
rm -rf "$folder"
mv "$work/root" "$folder"
echo "libvirt $("$folder"/usr/lib*/ld-linux*.so.* --library-path "$(echo "$folder"/usr/lib/*-linux-gnu)" "$folder/usr/sbin/libvirtd" --version | grep -o '[0-9.]*$') is in $folder"
