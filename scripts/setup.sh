#!/bin/sh
# Installs the system packages that the demo or the tests need, where it may: on Debian and its kin, as root.
# Elsewhere it says what is missing and what will not run for it, and ends well: nothing else depends on it.
#
#   sh scripts/setup.sh demo|test
#
# With everything in place it calls no package manager and takes a few milliseconds.
set -eu

usage() {
  echo 'usage: setup.sh demo|test' >&2
  exit 2
}

# program (or file), Debian package
demo_needs='ip iproute2
nft nftables
tcpdump tcpdump'
test_needs="$demo_needs
setpriv util-linux
ping iputils-ping
openssl openssl
certtool gnutls-bin
systemd-analyze systemd
ifup ifupdown
libvirtd libvirt-daemon
debootstrap debootstrap
virsh libvirt-clients
dnsmasq dnsmasq-base
iptables iptables
tshark tshark
swanctl strongswan-swanctl
charon-systemd charon-systemd
/usr/lib/ipsec/plugins/libstrongswan-gcm.so libstrongswan-standard-plugins
/usr/lib/ipsec/plugins/libstrongswan-ccm.so libstrongswan-extra-plugins
/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so libcharon-extra-plugins
modprobe kmod"
# User-Mode Linux exists for x86 alone, and libreswan and OpenIKED are tested in it, which are unpacked beside
# the system (unpack-peer.sh says why).
peers=/var/cache/sectunnel-tests
case $(uname -m) in x86_64 | i?86) test_needs="$test_needs
linux.uml user-mode-linux
certutil libnss3-tools
$peers/libreswan/usr/libexec/ipsec/pluto libreswan
$peers/openiked/usr/sbin/iked openiked" ;; esac
# On processors with AMX it takes a small library that the tests compile (test/support/lab/uml-xstate.c).
if grep -qs '^flags.*amx_tile' /proc/cpuinfo; then
  test_needs="$test_needs
cc gcc
/usr/include/stdio.h libc6-dev"
fi
# libipsec-mb is for 64-bit x86: version 1.3 in Debian 12, 2.0 in later ones.
if [ "$(uname -m)" = x86_64 ]; then
  case $(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null) in
    bookworm) test_needs="$test_needs
/usr/lib/x86_64-linux-gnu/libIPSec_MB.so.1 libipsec-mb1" ;;
    trixie | forky | sid) test_needs="$test_needs
/usr/lib/x86_64-linux-gnu/libIPSec_MB.so.2 libipsec-mb2" ;;
  esac
fi

[ $# -eq 1 ] || usage
case $1 in
  demo) needs=$demo_needs skipped='the demo runs with devices in memory instead of network namespaces' ;;
  test) needs=$test_needs skipped='the interop tests that need them are skipped' ;;
  *) usage ;;
esac

PATH=$PATH:/usr/sbin:/sbin
export PATH

is_there() {
  case $1 in
    /*) [ -e "$1" ] ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

# Prints the packages of what is not there.
missing_packages() {
  echo "$needs" | while read -r what package; do
    is_there "$what" || echo "$package"
  done | tr '\n' ' ' | sed 's| $||'
}

# The tests run with the libvirt of Debian unstable too, which stands in a folder of its own.
newer_libvirt() {
  if [ "$1" != test ] || [ "$(id -u)" -ne 0 ] || ! is_there debootstrap || ! is_there apt-get; then return; fi
  bash "$(dirname "$0")/newer-libvirt.sh" ||
    echo 'setup: the libvirt of Debian unstable cannot be had; the tests that run with it are skipped'
}

missing=$(missing_packages)
if [ -z "$missing" ]; then
  newer_libvirt "$1"
  exit 0
fi

if [ "$(uname -s)" != Linux ]; then
  echo "setup: this is not Linux; $skipped"
elif ! command -v apt-get >/dev/null 2>&1; then
  echo "setup: missing, by the names of Debian's packages: $missing"
  echo "setup: there is no apt-get here to install them with; $skipped"
elif [ "$(id -u)" -ne 0 ]; then
  echo "setup: missing Debian packages: $missing"
  echo "setup: only root may install them (sh scripts/setup.sh $1); $skipped"
else
  echo "setup: installing $missing"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  install() {
    packages='' beside=''
    for package in $missing; do
      case $package in
        libreswan | openiked) beside="$beside $package" ;;
        *) packages="$packages $package" ;;
      esac
    done
    # shellcheck disable=SC2086 # a list of words
    [ -z "$packages" ] || apt-get install -y --no-install-recommends $packages || return 1
    for package in $beside; do
      sh "$(dirname "$0")/unpack-peer.sh" "$package" "$peers/$package" || return 1
    done
  }
  # The package lists of an image may be absent or stale: fetch them only when the first attempt shows it.
  if ! install >"$log" 2>&1 </dev/null && ! { apt-get update -q && install; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log"
    echo "setup: apt-get could not install them; $skipped"
  fi
  rm -f "$log"
  missing=$(missing_packages)
  [ -z "$missing" ] || echo "setup: still missing: $missing"
fi
newer_libvirt "$1"
