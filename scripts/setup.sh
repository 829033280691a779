# Sourced by scripts/demo and scripts/test: everything they need, installed where it is missing.
# POSIX sh; apt (Debian 12 or newer, Ubuntu 24.04 or newer) or dnf (RHEL 9 family, Fedora).
# Where nothing is missing it needs neither root nor a network.

CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 1

say() { printf '%s\n' "== $*" >&2; }
die() { printf '%s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else die "this needs root or sudo"
    fi
}

# What each purpose needs: the tool itself (and libvirt-python's compiler), its tests, and the lab of real hosts.
# EXTRA: not in every distribution's own repositories; what needs them does without, and says so.
APT_TOOL="openssh-client python3 python3-venv python3-dev gcc pkg-config libvirt-dev
          libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core"
APT_EXTRA_TOOL=""
APT_TEST="libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils openssh-server sudo
          poppler-utils nftables iptables iproute2 iputils-ping patch"
APT_EXTRA_TEST="chromium fish tcsh busybox virtinst systemd-container bindfs procps"
# Ubuntu: Chromium is no package, busybox-static is in the way
APT_LAB="systemd-container bindfs procps qemu-block-extra tgt swtpm swtpm-tools ovmf openvswitch-switch gnutls-bin"

DNF_PYTHON=python3; ! grep -qs platform:el9 /etc/os-release || DNF_PYTHON=python3.11    # RHEL 9's own is 3.9
DNF_TOOL="openssh-clients $DNF_PYTHON $DNF_PYTHON-devel gcc pkgconf-pkg-config pango harfbuzz
          dejavu-sans-fonts dejavu-sans-mono-fonts"
DNF_EXTRA_TOOL="libvirt-devel"                      # RHEL: in CodeReady Builder
DNF_TEST="libvirt-daemon-kvm libvirt-client qemu-kvm qemu-img openssh-server sudo poppler-utils nftables iproute
          iputils tcsh patch"
DNF_EXTRA_TEST="chromium fish virt-install"         # RHEL: chromium and fish are in EPEL
dnf_options=

is_installed() {
    case $packager in
    apt) case $(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null) in ii*) ;; *) return 1 ;; esac ;;
    dnf) rpm -q "$1" >/dev/null 2>&1 ;;
    esac
}

missing_of() {          # missing_of PACKAGE…
    for package; do is_installed "$package" || printf ' %s' "$package"; done
}

install_packages() {    # install_packages PACKAGE…
    case $packager in
    # A first boot's own updates may hold the lock. Nothing of the machine's may be removed for our sake.
    apt) as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends --no-remove \
            -o DPkg::Lock::Timeout=300 install "$@" >/dev/null ;;
    dnf) # shellcheck disable=SC2086  # no word, or some
        as_root dnf -q -y $dnf_options install "$@" ;;
    esac
}

code_ready() {          # dnf's options for CodeReady Builder; dnf refuses repositories that it does not know
    dnf -q repolist --all 2>/dev/null |
        awk '$1 ~ /^crb$|codeready.builder/ && $1 !~ /debug|source|eus|beta/ { print "--enablerepo=" $1 }'
}

supply() {              # supply PACKAGE…: all of them, or this is the end
    # shellcheck disable=SC2046  # a list of words
    set -- $(missing_of "$@")
    [ $# != 0 ] || return 0
    say "installing $*"
    as_root true || exit 1
    # One broken repository among many need not matter: the installation will tell.
    [ "$packager" != apt ] || as_root apt-get -qq update || say "apt-get update failed: going on with what is known"
    install_packages "$@" || die "not installed: $*"
}

supply_extra() {        # supply_extra PACKAGE…: each of them that can be had
    [ "$packager" != dnf ] || dnf_options=$(code_ready)
    for package in $(missing_of "$@"); do
        say "installing $package"
        (install_packages "$package") || say "$package cannot be installed here: going on without it"
    done
}

find_python() {         # one that is new enough and complete; the distribution's first: its headers are there
    for python in python3 python3.11 python3.12 python3.13 python3.14; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return 0
        fi
    done
    die "no Python 3.11 or newer with venv was found"
}

has_venv() {            # whether .venv/ works: it does not where it was moved to, nor without the Python it was made from
    .venv/bin/python -c '' 2>/dev/null && grep -qsF "$(pwd -P)/.venv/" .venv/bin/pip
}

is_set_up() {           # is_set_up tool|test
    [ "$(cat ".venv/.$1" 2>/dev/null)" = "$(cksum <pyproject.toml)" ] && has_venv
}

make_venv() {           # make_venv tool|test
    say "setting up .venv/"
    has_venv || { python=$(find_python) && "$python" -m venv --clear .venv; } || exit 1
    extras=; [ "$1" = tool ] || extras=dev
    .venv/bin/python -m pip -q --disable-pip-version-check install -e ".[libvirt${extras:+,$extras}]" || {
        say "libvirt-python cannot be built here: going on without its cross-check"
        .venv/bin/python -m pip -q --disable-pip-version-check install -e ".${extras:+[$extras]}"
    }
    for purpose in tool ${extras:+test}; do cksum <pyproject.toml >".venv/.$purpose"; done
}

set_up() {              # set_up tool|test|lab: each includes the one before
    if [ "$1" = lab ]; then
        set_up test
        [ "$packager" = apt ] || die "the lab's hosts are Debian's: it needs Debian 12 or newer"
        # shellcheck disable=SC2086  # a list of words
        supply $APT_LAB
        return
    fi
    if command -v apt-get >/dev/null 2>&1; then
        packager=apt needed=$APT_TOOL extra=$APT_EXTRA_TOOL
        [ "$1" = tool ] || { needed="$needed $APT_TEST"; extra="$extra $APT_EXTRA_TEST"; }
    elif command -v dnf >/dev/null 2>&1; then
        packager=dnf needed=$DNF_TOOL extra=$DNF_EXTRA_TOOL
        [ "$1" = tool ] || { needed="$needed $DNF_TEST"; extra="$extra $DNF_EXTRA_TEST"; }
    else
        packager='' needed='' extra=''
        say "neither apt-get nor dnf: assuming that the packages in scripts/setup.sh are there"
    fi
    # shellcheck disable=SC2086  # lists of words
    supply $needed
    is_set_up "$1" && return 0
    # shellcheck disable=SC2086
    supply_extra $extra
    make_venv "$1"
}
