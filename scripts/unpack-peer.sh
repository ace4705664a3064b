#!/bin/sh
# Unpacks Debian's package of a peer into a folder and installs the libraries it needs. Its daemon would run on this host
# as soon as it was installed, and want the ports of IKE; libreswan's package and strongSwan's exclude each other, and the
# tests have both as peers.
#
#   sh scripts/unpack-peer.sh PACKAGE FOLDER
set -eu

package=$1 folder=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download "$package"
dpkg -x "$package"_*.deb root
libraries=$(dpkg -f "$package"_*.deb Depends | tr ',' '\n' | sed -n 's/^ *\(lib[^ |:]*\).*/\1/p')
# shellcheck disable=SC2086 # a list of words
apt-get install -y --no-install-recommends $libraries
# Last: what is there can be run.
mkdir -p "$(dirname "$folder")"
mv root "$folder"
