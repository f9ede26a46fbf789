//! The units of systemd, the user's own ones, and the lines for cron. The program brings the units along, so that it can set
//! up a host to which nothing else of wxtoken was copied.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cidr::IpCidr;

use super::host::{SetupHost, USER};
use super::messages;
use super::step::SetupStep;
use crate::error::Exit;
use crate::language::in_both;
use crate::message::cannot;
use crate::model::address::network;
use crate::os::fault::{Doing, explained};

/// Variables that `fetch` needs, with directories in them.
type Variables = [(&'static str, PathBuf)];

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
    let (program, copy) = host.program();
    let mut steps = Vec::new();
    if let Some(to) = copy {
        steps.push(SetupStep::Program { from: host.own_program().to_owned(), to });
    }
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
const MARK: &str = "# Written by wxtoken setup";

/// Returns the text of a file that was written here; an empty one if there is none. Fails if people have written it, or if it
/// cannot be read.
fn own_text(path: &Path) -> Result<String> {
    let there = match fs::read_to_string(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => String::new(),
        there => there.map_err(|err| {
            let what = cannot("read", "读取", path.display());
            Exit::Usage.error(format!("{what}: {}", explained(&err, path, Doing::Reading)))
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

/// Returns the path of a program as a word of a line of cron's, which a shell reads.
fn for_cron(program: &Path) -> String {
    let path = program.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+%".contains(c);
    let word = match path.chars().all(is_plain) {
        true => path,
        false => format!("'{}'", path.replace('\'', "'\\''")),
    };
    word.replace('%', "\\%")
}

/// What a line of cron's begins with.
const EVERY_MINUTE: &str = "* * * * * ";

/// Returns the command of a line of cron's that runs `fetch`. Once the program is removed it does nothing: cron would send a
/// mail about it every minute.
fn fetch_where_it_is(program: &Path, variables: &str) -> String {
    let program = for_cron(program);
    format!("[ -x {program} ] && {variables}{program} fetch")
}

/// Returns the steps that have cron run `fetch` every minute as the user of the service. What a person has added to the file
/// stays, such as a proxy.
pub(super) fn cron(host: &SetupHost) -> Result<Vec<SetupStep>> {
    let path = host.path("etc/cron.d/wxtoken");
    let there = own_text(&path)?;
    let (program, copy) = host.program();
    let from = host.own_program().to_owned();
    let copy = copy.map(|to| SetupStep::Program { from, to });
    let line = format!("{EVERY_MINUTE}{USER} {}", fetch_where_it_is(&program, ""));
    let is_fetch = |it: &&str| {
        it.strip_prefix(EVERY_MINUTE)
            .is_some_and(|it| it.starts_with(USER) && it.ends_with(" fetch"))
    };
    let text = match there.lines().find(is_fetch) {
        Some(old) => there.replacen(old, &line, 1),
        None if !there.is_empty() => format!("{}\n{line}\n", there.trim_end()),
        None => format!(
            "{MARK}: keeps the tokens of /etc/wxtoken/wxtoken.toml fresh. A run with nothing due prints\n\
             # nothing and makes no request.\n\
             PATH=/usr/local/bin:/usr/bin:/bin\nMAILTO=root\n\n{line}\n"
        ),
    };
    Ok(copy.into_iter().chain(SetupStep::text(path, 0o644, text)).collect())
}

/// Returns the steps that have a user's crontab, which is `there`, run `fetch` with these variables every minute. A line for the
/// same AppID alone is replaced.
pub(super) fn crontab(
    there: &str,
    program: &Path,
    variables: &Variables,
    appid: &str,
) -> Vec<SetupStep> {
    let set = |(name, dir): &(&str, PathBuf)| format!("{name}={} ", for_cron(dir));
    let set: String = variables.iter().map(set).collect();
    let line = format!("{EVERY_MINUTE}{}", fetch_where_it_is(program, &set));
    // As an earlier version wrote it, for this program or one elsewhere, and not for a config elsewhere.
    let is_earlier = |it: &str| {
        let command = it.strip_prefix(EVERY_MINUTE).unwrap_or_default();
        let is_fetch = command == format!("{} fetch", for_cron(program))
            || command.ends_with("/wxtoken fetch");
        is_fetch
            && if set.is_empty() { !command.contains("&& XDG_") } else { command.contains(&set) }
    };
    if there.lines().any(|it| it == line) {
        return Vec::new();
    }
    let is_of_account = |it: &str| {
        !it.starts_with('#') && it.contains(" fetch --appid ") && it.contains(&format!(" {appid} "))
    };
    let kept = there.lines().filter(|it| !is_of_account(it) && !is_earlier(it));
    let input: String = kept.chain([line.as_str()]).map(|it| format!("{it}\n")).collect();
    let words = vec!["crontab".to_owned(), "-".to_owned()];
    vec![SetupStep::Run { words, before: there.to_owned(), input }]
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
        own_text(&place(name))?;
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
    fn the_path_of_the_program_is_one_word_for_systemd_and_cron() {
        for (path, systemd, cron) in [
            ("/b/wxtoken-1.0", "/b/wxtoken-1.0", "/b/wxtoken-1.0"),
            ("/a b/x", "\"/a b/x\"", "'/a b/x'"),
            ("/a%b/$c", "/a%%b/$c", "'/a\\%b/$c'"),
        ] {
            let path = Path::new(path);
            assert_eq!((for_systemd(path).as_str(), for_cron(path).as_str()), (systemd, cron));
        }
    }

    #[test]
    fn a_crontab_gets_one_line_and_keeps_those_of_others() {
        let there = "MAILTO=me\n# wxtoken fetch --appid wx1 x\n* * * * * /b/wxtoken fetch --appid wx1 --x\n0 1 * * * b\n";
        let program = Path::new("/b/wxtoken");
        let input = |steps: Vec<SetupStep>| match steps.into_iter().next() {
            Some(SetupStep::Run { input, .. }) => input,
            _ => String::new(),
        };
        let written = input(crontab(there, program, &[], "wx1"));
        let line = "* * * * * [ -x /b/wxtoken ] && /b/wxtoken fetch\n";
        let others = "MAILTO=me\n# wxtoken fetch --appid wx1 x\n0 1 * * * b\n";
        assert_eq!(written, format!("{others}{line}"));
        assert!(crontab(&written, program, &[], "wx1").is_empty());
        assert_eq!(input(crontab("", program, &[], "wx1")), line);
        // That of another version or another place is replaced.
        for earlier in ["/b/wxtoken fetch", "[ -x /c/wxtoken ] && /c/wxtoken fetch"] {
            let there = format!("* * * * * {earlier}\n{others}");
            assert_eq!(input(crontab(&there, program, &[], "wx1")), written);
        }
        // That of a config elsewhere goes on, and has a line of its own.
        let elsewhere = [("XDG_CONFIG_HOME", PathBuf::from("/c d"))];
        let both = input(crontab(&written, program, &elsewhere, "wx1"));
        let own = "* * * * * [ -x /b/wxtoken ] && XDG_CONFIG_HOME='/c d' /b/wxtoken fetch\n";
        assert_eq!(both, format!("{written}{own}"));
        assert!(crontab(&both, program, &elsewhere, "wx1").is_empty());
        assert!(crontab(&both, program, &[], "wx1").is_empty());
        // That of another account goes on.
        assert!(input(crontab(there, program, &[], "wx2")).starts_with(there));
    }
}
