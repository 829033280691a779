# Sourced by scripts/demo and scripts/test: everything they need, installed where it is missing.
# POSIX sh; apt (Debian 12 or newer, Ubuntu 24.04 or newer) or dnf (RHEL 9 family, Fedora).
# Where nothing is missing it needs neither root nor a network.

cd "$(dirname "$0")/.." || exit 1

say() { printf '%s\n' "== $*" >&2; }
die() { printf '%s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else die "this needs root or sudo: $*"
    fi
}

# What each purpose needs: the tool itself (and libvirt-python's compiler), and its tests.
APT_TOOL="openssh-client python3 python3-venv python3-dev gcc pkg-config libvirt-dev
          libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core"
APT_TEST="libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils openssh-server sudo
          chromium poppler-utils fish tcsh busybox nftables iptables iproute2"
DNF_TOOL="openssh-clients python3.11 python3.11-devel gcc pkgconf-pkg-config pango harfbuzz dejavu-sans-fonts"
DNF_TEST="libvirt-daemon-kvm libvirt-client qemu-kvm qemu-img openssh-server sudo poppler-utils nftables iproute"
DNF_EXTRA_TOOL="libvirt-devel"              # in CodeReady Builder
DNF_EXTRA_TEST="chromium fish"              # in EPEL; the tests that need them say so when they skip

install_packages() {    # install_packages tool|test
    if command -v apt-get >/dev/null 2>&1; then
        wanted=$APT_TOOL; [ "$1" = tool ] || wanted="$wanted $APT_TEST"
        missing=
        for package in $wanted; do
            case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
            ii*) ;;
            *) missing="$missing $package" ;;
            esac
        done
        [ -n "$missing" ] || return 0
        say "installing$missing"
        as_root apt-get -qq update
        # shellcheck disable=SC2086  # a list of words
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $missing >/dev/null
    elif command -v dnf >/dev/null 2>&1; then
        wanted=$DNF_TOOL; extra=$DNF_EXTRA_TOOL
        [ "$1" = tool ] || { wanted="$wanted $DNF_TEST"; extra="$extra $DNF_EXTRA_TEST"; }
        missing=; for package in $wanted; do rpm -q "$package" >/dev/null 2>&1 || missing="$missing $package"; done
        # shellcheck disable=SC2086
        [ -z "$missing" ] || { say "installing$missing"; as_root dnf -q -y install $missing; }
        for package in $extra; do
            rpm -q "$package" >/dev/null 2>&1 ||
                as_root dnf -q -y --enablerepo='*crb*' --enablerepo='*codeready*' install "$package" ||
                say "$package cannot be installed from this machine's repositories: going on without it"
        done
    else
        say "neither apt-get nor dnf: assuming that the packages in scripts/setup.sh are there"
    fi
}

find_python() {         # the newest Python that is new enough and complete
    for python in python3.14 python3.13 python3.12 python3.11 python3; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return 0
        fi
    done
    die "no Python 3.11 or newer with venv was found"
}

make_venv() {           # make_venv tool|test: .venv/, again only when pyproject.toml has changed
    stamp=$(cksum <pyproject.toml)
    [ "$(cat ".venv/.$1" 2>/dev/null)" != "$stamp" ] || return 0
    say "setting up .venv/"
    [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
    extras=; [ "$1" = tool ] || extras=dev
    .venv/bin/python -m pip -q --disable-pip-version-check install -e ".[libvirt${extras:+,$extras}]" || {
        say "libvirt-python cannot be built here: going on without its cross-check"
        .venv/bin/python -m pip -q --disable-pip-version-check install -e ".${extras:+[$extras]}"
    }
    for purpose in tool ${extras:+test}; do printf '%s\n' "$stamp" >".venv/.$purpose"; done
}

set_up() { install_packages "$1" && make_venv "$1"; }
