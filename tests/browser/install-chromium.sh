#!/usr/bin/env bash
# Puts a Chromium where the browser tests find it: installs Debian's package unless there is one already.
# The tests themselves download nothing. CHROMIUM=/path/to/it names another browser.
set -euo pipefail

for name in "${CHROMIUM:-chromium}" chromium chromium-browser google-chrome google-chrome-stable; do
  if found=$(command -v "$name"); then
    echo "browser tests will use $found"
    exit 0
  fi
done

if ! grep -q '^ID=debian' /etc/os-release 2>/dev/null; then # Ubuntu's package is a stub that needs snap
  echo "No Chromium here, and this is no Debian: install Chromium or Chrome, or set CHROMIUM to the path of one." >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "No Chromium here. Run as root: $0   (it runs apt-get install --no-install-recommends chromium)" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq --yes --no-install-recommends chromium >/dev/null
echo "browser tests will use $(command -v chromium)"
