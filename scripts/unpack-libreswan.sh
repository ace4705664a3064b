#!/bin/sh
# Unpacks Debian's libreswan into a folder and installs the libraries it needs: as packages libreswan and strongSwan
# exclude each other, and the tests have both as peers.
#
#   sh scripts/unpack-libreswan.sh FOLDER
set -eu

folder=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download libreswan
dpkg -x libreswan_*.deb root
libraries=$(dpkg -f libreswan_*.deb Depends | tr ',' '\n' | sed -n 's/^ *\(lib[^ |:]*\).*/\1/p')
# shellcheck disable=SC2086 # a list of words
apt-get install -y --no-install-recommends $libraries
# Last: what is there can be run.
mkdir -p "$(dirname "$folder")"
mv root "$folder"
