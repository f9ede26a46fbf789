//! The commands by which the guide to several accounts sets a mirror's host up, word by word, on a copy of this machine's
//! directories.

use std::fs;
use std::process::Command;

use crate::documents::{blocks, read};
use crate::support::home::{Home, appsecret, wechat_with_accounts};
use crate::support::*;

/// Runs the commands in the file `$1` with copies of `/etc` and others in the directory `$0`; before them those in `$2`, and after
/// them what cron does.
const ON_A_COPY: &str = r#"cd "$0"
    cp -a /etc etc; rm -rf etc/wxtoken etc/cron.d/wxtoken; mkdir -p lib etc/cron.d
    for file in passwd group shadow gshadow; do [ ! -e etc/$file ] || sed -i '/^wxtoken:/d' etc/$file; done
    mount --bind etc /etc; mount --bind lib /var/lib; mount --bind bin /usr/local/bin
    . ./before
    . ./commands
    if [ -e /etc/cron.d/wxtoken ]; then
        eval "sudo -u $(sed 's/^\* \* \* \* \* //' /etc/cron.d/wxtoken) --force"
    fi
    stat -c '%U %a %n' /etc/wxtoken/secrets/* /var/lib/wxtoken/shop.json
    wxtoken get -r shop"#;

const SUDO: &str = r#"#!/bin/sh
    [ "$1" = -u ] || exec "$@"
    user=$2; shift 2
    exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
"#;

/// Starts the job as systemd does, with copies of the secrets.
const SYSTEMCTL: &str = r#"#!/bin/sh
    echo "systemctl $*" >&2
    [ "$1" = start ] || exit 0
    mkdir -p /var/lib/credentials
    for secret in /etc/wxtoken/secrets/*; do
        install -o wxtoken -m 400 "$secret" "/var/lib/credentials/secrets.d_${secret##*/}"
    done
    CREDENTIALS_DIRECTORY=/var/lib/credentials exec sudo -u wxtoken wxtoken fetch
"#;

/// What the Debian package makes: its sysusers.d and tmpfiles.d.
const BY_PACKAGE: &str = "useradd --system --user-group --home-dir /var/lib/wxtoken wxtoken
    install -d -m 755 /etc/wxtoken; install -d -m 700 /etc/wxtoken/secrets
    install -d -o wxtoken -g wxtoken -m 750 /var/lib/wxtoken\n";

#[needs(root, mount)]
#[test]
fn the_guides_commands_set_a_mirrors_host_up() {
    let wechat = wechat_with_accounts(1, &[]);
    let config = "[account.shop]\nappid = \"wx0\"\nsecret_file = \"shop.secret\"\n";
    let central = Home::new(&format!("{config}base_url = \"{}\"\n", wechat.url()));
    central.put_secret("shop", &appsecret(0));
    let key = new_key(&["mirror"]);
    write_with_mode(&central.path("keys"), &key.line, 0o600);
    let server = central.serve(&["--refresh", "--keys", central.path("keys").to_str().unwrap()]);
    let guide = blocks(&read("docs/en/several-accounts.md"));
    let config = guide.iter().find(|it| it.language == "toml" && it.text.contains("\nfrom = "));
    let config = config.expect("the guide has a mirror's config").text.clone();
    let source = format!("http://{}", server.address());
    for (place, owner, before) in
        [("secrets/\nsudo systemctl", "root", BY_PACKAGE), ("/etc/cron.d/wxtoken", "wxtoken", "")]
    {
        let commands = guide.iter().find(|it| it.language == "sh" && it.text.contains(place));
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let config = config.replace("https://central.example:7200", &source);
        write_with_mode(&path("wxtoken.toml"), &config, 0o600);
        write_with_mode(&path("shop.key"), &key.key, 0o600);
        fs::write(path("commands"), &commands.expect("the guide has commands").text).unwrap();
        fs::write(path("before"), before).unwrap();
        fs::create_dir(path("bin")).unwrap();
        write_program(&path("bin/sudo"), SUDO);
        write_program(&path("bin/systemctl"), SYSTEMCTL);
        let copied =
            Command::new("cp").arg(wxtoken().get_program()).arg(path("bin/wxtoken")).status();
        assert!(copied.unwrap().success());
        let mut setup = Command::new("unshare");
        setup.args(["--mount", "sh", "-euc", ON_A_COPY]).arg(dir.path()).env_clear();
        setup.env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("WXTOKEN_LANG", "en");
        let ran = Run::new(setup).exits(0);
        let token = central.token("shop").unwrap();
        for line in [
            &format!("{owner} 600 /etc/wxtoken/secrets/shop.key"),
            "wxtoken 640 /var/lib/wxtoken/shop.json",
            &token,
        ] {
            assert!(ran.stdout.lines().any(|it| it == line), "{line}: {ran:?}");
        }
    }
}
