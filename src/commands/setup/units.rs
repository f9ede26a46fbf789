//! The units of systemd, and the user's own ones. The program brings the units along, so that it can set
//! up a host to which nothing else of wxtoken was copied.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cidr::IpCidr;

use super::host::{OWN_DIRS, SetupHost, USER};
use super::messages;
use super::step::SetupStep;
use crate::error::Exit;
use crate::language::in_both;
use crate::message::cannot;
use crate::model::address::network;
use crate::os::fault::{Operation, explained};

/// Variables that `fetch` needs, with directories in them.
pub(super) type Variables = [(&'static str, PathBuf)];

/// Where the units of contrib have the program.
const PROGRAM: &str = "/usr/local/bin/wxtoken";

/// How a unit gets the secrets of all accounts. One of an earlier version does not have it.
const CREDENTIALS: &str = "LoadCredential=secrets.d:/etc/wxtoken/secrets";

/// The units, by name.
const UNITS: [(&str, &str); 4] = [
    ("wxtoken-fetch.service", include_str!("../../../contrib/systemd/wxtoken-fetch.service")),
    ("wxtoken-fetch.timer", include_str!("../../../contrib/systemd/wxtoken-fetch.timer")),
    ("wxtoken-serve.service", include_str!("../../../contrib/systemd/wxtoken-serve.service")),
    ("wxtoken-central.service", include_str!("../../../contrib/systemd/wxtoken-central.service")),
];

/// The user of the service.
const SYSUSERS: &str = include_str!("../../../contrib/systemd/wxtoken.sysusers");

/// Returns the steps that make the user of the service, if there is none.
pub(super) fn user(host: &SetupHost, has_sysusers: bool) -> Vec<SetupStep> {
    if host.service_user().is_some() {
        return Vec::new();
    }
    if !has_sysusers {
        let home = "/var/lib/wxtoken";
        let nologin = "/usr/sbin/nologin";
        return vec![SetupStep::run(&[
            "useradd",
            "--system",
            "--user-group",
            "--home-dir",
            home,
            "--shell",
            nologin,
            USER,
        ])];
    }
    let packaged = ["usr/lib/sysusers.d/wxtoken.conf", "etc/sysusers.d/wxtoken.conf"];
    let file = match packaged.into_iter().any(|path| host.path(path).exists()) {
        true => None,
        false => {
            SetupStep::text(host.path("etc/sysusers.d/wxtoken.conf"), 0o644, SYSUSERS.to_owned())
        }
    };
    file.into_iter().chain([SetupStep::run(&["systemd-sysusers"])]).collect()
}

/// Returns the steps that install the units, if they are not there. Fails if they are those of an earlier version.
pub(super) fn units(host: &SetupHost) -> Result<Vec<SetupStep>> {
    if let Some(path) = host.unit("wxtoken-fetch.service") {
        let unit = fs::read_to_string(&path).unwrap_or_default();
        return match unit.contains(CREDENTIALS) {
            true => Ok(Vec::new()),
            false => Err(Exit::Usage.error(messages::UNIT_OF_BEFORE.with([&path.display()]))),
        };
    }
    let (program, copy) = host.installed_program()?;
    let mut steps = Vec::from_iter(copy);
    let program = for_systemd(&program);
    // That of `fetch` comes last: where it is, all are taken to be there.
    for (name, text) in UNITS.into_iter().rev() {
        let path = host.path("etc/systemd/system").join(name);
        own_text(&path)?;
        let text = format!("{MARK}.\n{}", text.replace(PROGRAM, &program));
        steps.extend(SetupStep::text(path, 0o644, text));
    }
    Ok(steps)
}

/// What a file begins with that was written here, and that may be written again.
pub(super) const MARK: &str = "# Written by wxtoken setup";

/// Returns the text of a file that was written here; an empty one if there is none. Fails if people have written it, or if it
/// cannot be read.
pub(super) fn own_text(path: &Path) -> Result<String> {
    let there = match fs::read_to_string(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => String::new(),
        there => there.map_err(|err| {
            let what = cannot("read", "读取", path.display());
            Exit::Usage.error(format!("{what}: {}", explained(&err, path, Operation::Reading)))
        })?,
    };
    if there.is_empty() || there.contains(MARK) {
        return Ok(there);
    }
    Err(Exit::Usage.error(messages::NOT_OURS.with([&path.display()])))
}

/// The networks that the filter of `wxtoken-serve.service` lets through.
const PRIVATE: [&str; 9] = [
    "127.0.0.0/8",
    "::1",
    "169.254.0.0/16",
    "fe80::/64",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
];

/// Returns the step that has the unit's filter let through, besides private networks, what `[serve] allow` says. Without it the
/// packets of such clients are dropped, and they only see that nothing answers.
pub(super) fn filter(host: &SetupHost, allow: &[String]) -> Result<Option<SetupStep>> {
    let path = host.path("etc/systemd/system/wxtoken-serve.service.d/allow.conf");
    let there = own_text(&path)?;
    let is_within = |it: &IpCidr, other: &str| {
        network::parse(other).is_ok_and(|other| {
            other.contains(&it.first_address()) && other.network_length() <= it.network_length()
        })
    };
    let allow = allow.iter().filter_map(|it| network::parse(it).ok());
    let public = allow.filter(|it| !PRIVATE.into_iter().any(|other| is_within(it, other)));
    let lines: String = public.map(|it| format!("IPAddressAllow={it:#}\n")).collect();
    if lines.is_empty() && there.is_empty() {
        return Ok(None);
    }
    let head = "what [serve] allow in /etc/wxtoken/wxtoken.toml has besides private networks.";
    Ok(SetupStep::text(path, 0o644, format!("{MARK}: {head}\n[Service]\n{lines}")))
}

/// Returns the path of a program as a word of a unit's command line.
fn for_systemd(program: &Path) -> String {
    let path = program.display().to_string().replace('%', "%%");
    match path.chars().all(|c| !c.is_whitespace() && !"\"'\\;".contains(c)) {
        true => path,
        false => format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// Returns the steps that have the user's own systemd run `fetch` with these variables every minute. `dir` is the user's
/// directory of configs.
pub(super) fn user_units(
    dir: &Path,
    program: &Path,
    variables: &Variables,
) -> Result<Vec<SetupStep>> {
    let place = |name: &str| dir.join("systemd/user").join(name);
    let set = |(name, dir): &(&str, PathBuf)| {
        format!("Environment={}\n", for_systemd(Path::new(&format!("{name}={}", dir.display()))))
    };
    let environment: String = variables.iter().map(set).collect();
    let service = format!(
        "{MARK}.\n[Unit]\nDescription=Fetch the WeChat access tokens that are due\nStartLimitIntervalSec=0\n\n\
         [Service]\nType=oneshot\n{environment}ExecStart={} fetch\nTimeoutStartSec=2min\nSyslogLevel=warning\nLogLevelMax=notice\n",
        for_systemd(program)
    );
    let timer = format!("{MARK}.\n{}", UNITS[1].1);
    let mut steps = Vec::new();
    for (name, text) in [("wxtoken-fetch.service", service), ("wxtoken-fetch.timer", timer)] {
        let text = with_own_lines(&own_text(&place(name))?, text);
        steps.extend(SetupStep::text(place(name), 0o644, text));
    }
    // It may not have the variable, and look for units elsewhere.
    if !variables.is_empty() {
        let units = ["wxtoken-fetch.service", "wxtoken-fetch.timer"].map(place);
        let units = units.map(|it| it.display().to_string());
        steps.push(SetupStep::run(&["systemctl", "--user", "link", &units[0], &units[1]]));
    }
    let commands = [
        SetupStep::run(&["systemctl", "--user", "daemon-reload"]),
        SetupStep::run(&["systemctl", "--user", "enable", "--now", "wxtoken-fetch.timer"]),
        // Where users may not, an administrator may.
        SetupStep::Try {
            words: ["loginctl", "enable-linger"].map(str::to_owned).to_vec(),
            otherwise: in_both(
                "The timer stops when you log out, until an administrator runs: sudo loginctl enable-linger USER.",
                "退出登录后定时器会停止；请管理员执行 sudo loginctl enable-linger 用户名。",
            ),
        },
    ];
    steps.extend(commands);
    Ok(steps)
}

/// Returns a user's unit, whose text is `there`, with the lines of `new` that say what is run and where its files are. What a
/// person has changed besides stays, as by `systemctl --user edit --full`.
fn with_own_lines(there: &str, new: String) -> String {
    let is_own = |line: &str| {
        let set = line.strip_prefix("Environment=").map(|it| it.trim_start_matches('"'));
        let is_dir = |set: &str| OWN_DIRS.iter().any(|(name, _)| set.starts_with(name));
        line.starts_with("ExecStart=") || set.is_some_and(is_dir)
    };
    let own: Vec<&str> = new.lines().filter(|line| is_own(line)).collect();
    if there.is_empty() || (!own.is_empty() && !there.lines().any(is_own)) {
        return new;
    }
    let (mut text, mut own) = (String::new(), own.into_iter());
    for line in there.lines() {
        match is_own(line) {
            // All at the place of the first.
            true => text.extend(own.by_ref().flat_map(|line| [line, "\n"])),
            false => text.extend([line, "\n"]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_of_contrib_have_what_setup_relies_on() {
        for (name, text) in UNITS {
            let asks = ["wxtoken-fetch.service", "wxtoken-central.service"].contains(&name);
            assert_eq!(text.contains(CREDENTIALS), asks, "{name}");
            assert_eq!(text.contains(PROGRAM), name.ends_with(".service"), "{name}");
        }
        assert!(SYSUSERS.contains(&format!("u {USER} ")));
        let named = PRIVATE.join(" ");
        let named = named.replace("127.0.0.0/8 ::1", "localhost");
        let named = named.replace("169.254.0.0/16 fe80::/64", "link-local");
        assert!(UNITS[2].1.contains(&format!("\nIPAddressAllow={named}\n")), "{named}");
    }

    #[test]
    fn a_users_unit_keeps_what_a_person_has_changed() {
        let unit = |own: &str, more: &str| {
            format!("{MARK}.\n[Service]\nType=oneshot\n{own}\n{more}TimeoutStartSec=2min\n")
        };
        let old = "Environment=XDG_STATE_HOME=/s\nExecStart=/old/wxtoken fetch";
        let new = "Environment=\"XDG_CONFIG_HOME=/a b\"\nExecStart=/new/wxtoken fetch";
        let proxy = "Environment=HTTPS_PROXY=http://10.0.0.1:3128\n";
        assert_eq!(with_own_lines(&unit(old, proxy), unit(new, "")), unit(new, proxy));
        assert_eq!(with_own_lines(&unit(new, proxy), unit(new, "")), unit(new, proxy));
        assert_eq!(with_own_lines("", unit(new, "")), unit(new, ""));
        let timer = |time: &str| format!("{MARK}.\n[Timer]\nOnCalendar={time}\n");
        assert_eq!(with_own_lines(&timer("hourly"), timer("minutely")), timer("hourly"));
    }

    #[test]
    fn the_path_of_the_program_is_one_word_for_systemd() {
        for (path, word) in [
            ("/b/wxtoken-1.0", "/b/wxtoken-1.0"),
            ("/a b/x", "\"/a b/x\""),
            ("/a%b/$c", "/a%%b/$c"),
        ] {
            assert_eq!(for_systemd(Path::new(path)), word);
        }
    }
}
