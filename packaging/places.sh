# Where things go; sourced by install.sh and uninstall.sh so that both mean the same places.
set -eu

scope=user
case "${1:-}" in
    "") ;;
    --system) scope=system ;;
    *) echo "unknown argument $1; the only one is --system" >&2; exit 2 ;;
esac

if [ "$scope" = system ]; then
    prefix=${PREFIX:-/usr/local}
    unitdir=/etc/systemd/system
    systemctl="systemctl"
    config=/etc/tether data=/var/lib/tether/models state=/var/lib/tether
else
    prefix=${PREFIX:-$HOME/.local}
    unitdir=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
    systemctl="systemctl --user"
    config=${XDG_CONFIG_HOME:-$HOME/.config}/tether
    data=${XDG_DATA_HOME:-$HOME/.local/share}/tether
    state=${XDG_STATE_HOME:-$HOME/.local/state}/tether
fi
bindir=$prefix/bin

completions() {
    case "$1" in
        bash) echo "$prefix/share/bash-completion/completions/tether" ;;
        zsh) echo "$prefix/share/zsh/site-functions/_tether" ;;
        fish) echo "$prefix/share/fish/vendor_completions.d/tether.fish" ;;
    esac
}

# Unquoted on purpose: the second word is an option.
manager() { $systemctl "$@"; }
manager_runs() { command -v systemctl > /dev/null && manager show-environment > /dev/null 2>&1; }
