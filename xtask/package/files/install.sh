#!/bin/sh
# Installs Graft from the folder of this file.
set -eu
umask 022

usage() {
    cat <<'END'
Usage: ./install.sh [--system] [--uninstall]

Installs the plugin (CLAP and VST3), its presets and the standalone program for
the current user.

  --system     for all users; run it as root
  --uninstall  removes what was installed
END
}

system=
uninstall=
for argument in "$@"; do
    case $argument in
    --system) system=yes ;;
    --uninstall) uninstall=yes ;;
    -h | --help)
        usage
        exit
        ;;
    *)
        printf 'error: expected --system or --uninstall, found %s\n' "$argument" >&2
        exit 2
        ;;
    esac
done

from=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

if [ -n "$system" ]; then
    root=${DESTDIR:-}
    # Not all hosts look for CLAP files in /usr/local.
    clap=$root/usr/lib/clap
    vst3=$root/usr/local/lib/vst3
    presets=$root/usr/local/share/vst3/presets/Graft/Graft
    prefix=/usr/local
    if [ -z "$root" ] && dpkg -S "$clap/Graft.clap" >/dev/null 2>&1; then
        echo 'error: Graft is installed as a Debian package; first run: apt-get remove graft' >&2
        exit 1
    fi
else
    root=
    clap=$HOME/.clap
    vst3=$HOME/.vst3
    presets=$HOME/.vst3/presets/Graft/Graft
    prefix=$HOME/.local
fi
bin=$root$prefix/bin
share=$root$prefix/share

# place FILE TARGET: copies a file or a folder. A host that has the old one open keeps it.
place() {
    mkdir -p -- "$(dirname -- "$2")"
    rm -rf -- "$2.part"
    cp -R -- "$1" "$2.part"
    rm -rf -- "$2"
    mv -- "$2.part" "$2"
}

# remove TARGET: removes a file or a folder, and the folders around it that are then empty, up to one that others use.
remove() {
    rm -rf -- "$1"
    folder=$(dirname -- "$1")
    while [ "$folder" != "$clap" ] && [ "$folder" != "$vst3" ] && [ "$folder" != "$bin" ] &&
        [ "$folder" != "$share" ] && rmdir -- "$folder" 2>/dev/null; do
        folder=$(dirname -- "$folder")
    done
}

# each ACTION: calls `ACTION FILE TARGET` for all files but the menu entry.
each() {
    "$1" "$from/clap/Graft.clap" "$clap/Graft.clap"
    "$1" "$from/vst3/Graft.vst3" "$vst3/Graft.vst3"
    for file in "$from"/presets/*.vstpreset; do
        "$1" "$file" "$presets/${file##*/}"
    done
    "$1" "$from/bin/graft-standalone" "$bin/graft-standalone"
    for file in "$from"/share/graft/demo/*; do
        "$1" "$file" "$share/graft/demo/${file##*/}"
    done
    icon=icons/hicolor/scalable/apps/graft.svg
    "$1" "$from/share/$icon" "$share/$icon"
}

remove_target() {
    remove "$2"
}

entry=$share/applications/graft.desktop

if [ -n "$uninstall" ]; then
    each remove_target
    remove "$entry"
    echo 'Graft is removed.'
    exit
fi

each place
mkdir -p -- "$(dirname -- "$entry")"
# The folder of the program need not be in the search path of the desktop.
while IFS= read -r line; do
    case $line in
    Exec=*) printf 'Exec="%s"\n' "$prefix/bin/graft-standalone" ;;
    *) printf '%s\n' "$line" ;;
    esac
done <"$from/share/applications/graft.desktop" >"$entry"

echo 'Graft is installed. Rescan plugins in your DAW.'
printf '  CLAP        %s\n' "$clap/Graft.clap"
printf '  VST3        %s\n' "$vst3/Graft.vst3"
printf '  presets     %s\n' "$presets"
printf '  standalone  %s\n' "$bin/graft-standalone"
