//! `wxtoken setup`, on a directory that stands for `/`, with a systemctl and a crontab that note what they are told. On a real
//! system `.ci/systemd` runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::files::{OTHER_USER, by_other_user, open_to_all};
use crate::support::*;

const OTHER: &str = "wxfedcba9876543210";
const OTHER_SECRET: &str = "0f1e2d3c4b5a69780f1e2d3c4b5a6978";
const CORP: &str = "ww0123456789abcdef";
const CORP_SECRET_OF_OTHER: &str = "yQk1N_Zx9oRrMnIqS-mG4g8tW7vHbY2dQcJ5eLfA0uK";
const CORP_SECRET: &str = "xPk1N_Zx9oRrMnIqS-mG4g8tW7vHbY2dQcJ5eLfA0uK";

/// A directory that stands for `/`.
struct Machine {
    root: TempDir,
    wechat: WeChat,
}

impl Machine {
    /// A machine without systemd or cron, whose user `wxtoken` is this one.
    fn bare() -> Machine {
        let accounts = [(OTHER, OTHER_SECRET), (CORP, CORP_SECRET), (CORP, CORP_SECRET_OF_OTHER)];
        let accounts = accounts.map(|(appid, secret)| format!("{appid}:{secret}"));
        let flags: Vec<_> = accounts.iter().flat_map(|it| ["--account", it.as_str()]).collect();
        let machine = Machine { root: tempfile::tempdir().unwrap(), wechat: WeChat::with(&flags) };
        for dir in ["etc", "bin", "var/lib/wxtoken"] {
            fs::create_dir_all(machine.path(dir)).unwrap();
        }
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        let line = format!("root:x:0:0::/root:/bin/sh\nwxtoken:x:{user}:{group}::/:/bin/false\n");
        fs::write(machine.path("etc/passwd"), line).unwrap();
        machine
    }

    /// A machine with systemd, and with the units of contrib.
    fn with_systemd() -> Machine {
        let machine = Machine::bare();
        fs::create_dir_all(machine.path("run/systemd/system")).unwrap();
        let units = machine.path("usr/lib/systemd/system");
        fs::create_dir_all(&units).unwrap();
        let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
        for entry in fs::read_dir(contrib).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), units.join(entry.file_name())).unwrap();
        }
        // The service gets copies of the secrets, as systemd passes a directory of them.
        let script = format!(
            r#"#!/bin/sh
cd '{root}'
echo "$*" >>told
case "$*" in
"$(cat broken 2>/dev/null || echo -)") echo "Job failed." >&2; exit 1 ;;
"enable wxtoken-central.service")
  mkdir -p etc/systemd/system/multi-user.target.wants
  ln -sf x etc/systemd/system/multi-user.target.wants/wxtoken-central.service ;;
"start wxtoken-fetch.service")
  mkdir -p credentials
  for secret in etc/wxtoken/secrets/*; do
    cp "$secret" "credentials/secrets.d_${{secret##*/}}"
  done
  CREDENTIALS_DIRECTORY='{root}/credentials' exec '{wxtoken}' fetch -c etc/wxtoken/wxtoken.toml ;;
esac
"#,
            root = machine.root.path().display(),
            wxtoken = wxtoken().get_program().display(),
        );
        write_program(&machine.path("bin/systemctl"), &script);
        write_program(&machine.path("bin/journalctl"), "#!/bin/sh\necho 'what the journal says'\n");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|err| panic!("{name}: {err}"))
    }

    fn config(&self) -> String {
        self.read("etc/wxtoken/wxtoken.toml")
    }

    /// Returns what systemctl was told, and forgets it.
    fn told(&self) -> Vec<String> {
        let told = fs::read_to_string(self.path("told")).unwrap_or_default();
        let _ = fs::remove_file(self.path("told"));
        told.lines().map(str::to_owned).collect()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o777
    }

    /// Returns `wxtoken setup ARGS…`, whose WeChat is the stand-in.
    fn command(&self, args: &[&str]) -> Command {
        self.command_of(wxtoken(), args)
    }

    /// Returns the same, by this program.
    fn command_of(&self, mut command: Command, args: &[&str]) -> Command {
        command.arg("setup").args(args).arg("--root").arg(self.root.path());
        command.args(["--base-url", &self.wechat.url()]);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.env("HOME", self.root.path()).env("WXTOKEN_LANG", "en");
        command
    }

    /// Runs it with this secret on stdin.
    #[track_caller]
    fn set_up(&self, args: &[&str], secret: &str) -> Run {
        let mut command = self.command(args);
        command.args(["--secret-file", "-"]);
        with_input(command, secret)
    }

    /// Returns the token that is published for an account, as a user reads it.
    fn token(&self, name: &str) -> String {
        let mut get = wxtoken();
        get.args(["get", "-r", name, "-c"]).arg(self.path("etc/wxtoken/wxtoken.toml"));
        Run::new(get).exits(0).stdout.trim().to_owned()
    }

    /// Returns all files with their contents.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut dirs = vec![self.root.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    dirs.push(path.clone());
                    files.insert(path, Vec::new());
                } else {
                    let content = fs::read(&path).unwrap_or_default();
                    files.insert(path, content);
                }
            }
        }
        files
    }
}

fn with_input(mut command: Command, input: &str) -> Run {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended by then, for another reason.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    Run::from_output(child.wait_with_output().unwrap())
}

#[test]
fn an_account_is_set_up_from_nothing_by_one_command() {
    let machine = Machine::with_systemd();
    let ran = machine.set_up(&[APPID], &format!("{SECRET}\r\n")).exits(0);
    assert_eq!(ran.stderr, "");
    let ran = ran.prints(&[
        "WeChat accepts AppID and AppSecret.",
        "etc/wxtoken/secrets/default.secret (mode 0600)",
        "systemctl enable --now wxtoken-fetch.timer",
        "sudo wxtoken status",
        "sudo wxtoken get -r ",
        "sudo wxtoken check",
    ]);
    assert!(!ran.stdout.contains(SECRET), "{}", ran.stdout);
    let secrets = "etc/wxtoken/secrets";
    assert_eq!((machine.mode(secrets), machine.mode("etc/wxtoken/wxtoken.toml")), (0o700, 0o644));
    let secret = format!("{secrets}/default.secret");
    assert_eq!((machine.read(&secret), machine.mode(&secret)), (format!("{SECRET}\n"), 0o600));
    let config = machine.config();
    for line in ["[account.default]\nappid = \"wx0123456789abcdef\"\n", "mode = \"0640\"\n"] {
        assert!(config.contains(line), "{config}");
    }
    assert!(!config.contains("api") && !config.contains("[serve]"), "{config}");
    assert_eq!(machine.told(), ["enable --now wxtoken-fetch.timer", "start wxtoken-fetch.service"]);
    assert!(machine.wechat.is_alive(&machine.token("default")));
    assert_eq!(machine.mode("var/lib/wxtoken/default.json"), 0o640);
}

#[test]
fn run_again_it_adds_an_account_or_repairs_one_and_keeps_what_others_wrote() {
    let machine = Machine::with_systemd();
    machine.set_up(&[APPID], SECRET).exits(0);
    let first = machine.config();
    let mine = first.replace("[account.default]\n", "# mine\n[account.default] # here\r\n");
    let path = machine.path("etc/wxtoken/wxtoken.toml");
    write_with_mode(&path, &mine, 0o640);
    // A second one needs a name.
    machine.set_up(&[OTHER], OTHER_SECRET).exits(2).says(&["--name", "--name shop"]);
    machine.set_up(&[OTHER, "--name", "shop"], OTHER_SECRET).exits(0).prints(&["get -r shop"]);
    machine.set_up(&[CORP, "--work", "--name", "crm"], CORP_SECRET).exits(0);
    let config = machine.config();
    assert!(config.starts_with(&mine), "{config}");
    assert_eq!(machine.mode("etc/wxtoken/wxtoken.toml"), 0o640);
    assert!(config.contains(&format!("[account.crm]\r\nappid = \"{CORP}\"\r\napi = \"work\"\r\n")));
    for name in ["default", "shop", "crm"] {
        assert!(!machine.token(name).is_empty());
    }
    // The one of this AppID is known: it gets the new secret. Without a terminal the old one stays.
    let secret = "etc/wxtoken/secrets/shop.secret";
    fs::write(machine.path(secret), "broken\n").unwrap();
    machine.set_up(&[OTHER], OTHER_SECRET).exits(0);
    assert_eq!(machine.read(secret), format!("{OTHER_SECRET}\n"));
    Run::new(machine.command(&[OTHER])).exits(0);
    assert_eq!(machine.read(secret), format!("{OTHER_SECRET}\n"));
    assert_eq!(machine.config(), config);
    // A name that is another AppID's is not taken from it.
    machine.set_up(&[OTHER, "--name", "default"], OTHER_SECRET).exits(2).says(&[APPID, "--name"]);
    assert_eq!(machine.config(), config);
}

#[test]
fn a_second_app_of_a_corp_takes_nothing_from_the_first_one() {
    let machine = Machine::with_systemd();
    machine.set_up(&[CORP, "--work"], CORP_SECRET).exits(0);
    let before = machine.files();
    machine
        .set_up(&[CORP, "--work"], CORP_SECRET_OF_OTHER)
        .exits(2)
        .says(&["--name crm", "--name default"]);
    let dry = [CORP, "--work", "--dry-run"];
    machine.set_up(&dry, CORP_SECRET_OF_OTHER).exits(2).says(&["--name crm"]);
    // The Secret is not at hand.
    let hint = "like --name crm";
    Run::new(machine.command(&dry)).exits(0).prints(&[hint]);
    let decided = Run::new(machine.command(&[&dry[..], &["--name", "default"]].concat())).exits(0);
    assert!(!decided.stdout.contains(hint), "{}", decided.stdout);
    let decided = machine.set_up(&dry, CORP_SECRET).exits(0);
    assert!(!decided.stdout.contains(hint), "{}", decided.stdout);
    assert_eq!(machine.files(), before);
    // A Secret that was reset is replaced where the account is named, and the one that is there needs no name.
    let named = [CORP, "--work", "--name", "default"];
    machine.set_up(&named, CORP_SECRET_OF_OTHER).exits(0);
    machine.set_up(&[CORP, "--work"], CORP_SECRET_OF_OTHER).exits(0);
    machine.set_up(&[CORP, "--work", "--name", "crm"], CORP_SECRET).exits(0);
    assert_ne!(machine.token("default"), machine.token("crm"));
    // Nor from the one that the units have in their environment.
    let machine = Machine::with_systemd();
    fs::create_dir(machine.path("etc/wxtoken")).unwrap();
    let env = format!("WXTOKEN_APPID={CORP}\nWXTOKEN_API=work\nWXTOKEN_SECRET={CORP_SECRET}\n");
    write_with_mode(&machine.path("etc/wxtoken/wxtoken.env"), &env, 0o600);
    let before = machine.files();
    let named = [CORP, "--work", "--name", "crm"];
    machine.set_up(&named, CORP_SECRET_OF_OTHER).exits(2).says(&["wxtoken.env", CORP]);
    machine.set_up(&[CORP, "--work"], CORP_SECRET_OF_OTHER).exits(2).says(&["--name default"]);
    assert_eq!(machine.files(), before);
    machine.set_up(&[CORP, "--work"], CORP_SECRET).exits(0);
}

#[test]
fn a_secret_file_that_the_service_could_not_read_is_taken_over() {
    let machine = Machine::with_systemd();
    fs::create_dir(machine.path("etc/wxtoken")).unwrap();
    let before = format!("[account.shop]\nappid = '{APPID}'\nsecret_file = 'shop.secret' # mine\n");
    write_with_mode(&machine.path("etc/wxtoken/wxtoken.toml"), &before, 0o644);
    write_with_mode(&machine.path("etc/wxtoken/shop.secret"), SECRET, 0o600);
    // `dir` is where the unit has it.
    let mut command = machine.command(&[APPID]);
    command.env("STATE_DIRECTORY", machine.path("var/lib/wxtoken"));
    Run::new(command).exits(0);
    assert_eq!(machine.read("etc/wxtoken/secrets/shop.secret"), format!("{SECRET}\n"));
    assert!(machine.config().contains("\n#secret_file = 'shop.secret' # mine\n"));
}

#[test]
fn what_wechat_refuses_is_said_at_once_and_nothing_is_written() {
    let machine = Machine::with_systemd();
    let before = machine.files();
    let wrong = SECRET.replace('5', "6");
    let ran = machine.set_up(&[APPID], &wrong).exits(4).says(&["Nothing was written", "AppSecret"]);
    assert!(!ran.stderr.contains(&wrong));
    machine.set_up(&["wx0123456789abcdee"], SECRET).exits(4).says(&["40013"]);
    machine.wechat.fault("errcode:40164");
    machine.set_up(&[APPID], SECRET).exits(4).says(&["40164", "IP", "Nothing was written"]);
    machine.wechat.fault("http:502");
    machine.set_up(&[APPID], SECRET).exits(5).says(&["502"]);
    assert!(machine.files() == before && machine.told().is_empty());
}

#[test]
fn a_dry_run_prints_files_and_commands_and_does_nothing() {
    let machine = Machine::with_systemd();
    let before = machine.files();
    let args = [APPID, "--dry-run", "--serve", "10.0.0.5:7200", "--allow", "10.0.0.0/8"];
    let expected = [
        "Nothing is done.",
        "secrets/default.secret (mode 0600)",
        "    + [account.default]\n    + appid = \"wx0123456789abcdef\"\n",
        "    + allow = [\"10.0.0.0/8\"]",
        "  systemctl restart wxtoken-serve.service\n  systemctl start wxtoken-fetch.service\n",
    ];
    Run::new(machine.command(&args)).exits(0).prints(&expected);
    assert!(machine.files() == before && machine.told().is_empty());
    assert_eq!(machine.wechat.asked(), 0);
    // The services get the proxy of this environment, but no password.
    for (proxy, is_written) in [("http://10.0.0.1:3128", true), ("http://u:p@10.0.0.1:1", false)] {
        let mut command = wxtoken();
        command.args(["setup", APPID, "--dry-run", "--root"]).arg(machine.root.path());
        command.env("HTTPS_PROXY", proxy);
        let ran = Run::new(command).exits(0).prints(&["    + [account.default]"]);
        let line = format!("    + proxy = \"{proxy}\"\n");
        assert_eq!(ran.stdout.contains(&line), is_written, "{}", ran.stdout);
        assert!(!ran.stdout.contains("u:p"), "{}", ran.stdout);
    }
    // Where the units are not installed, the program has them.
    fs::remove_dir_all(machine.path("usr/lib/systemd")).unwrap();
    Run::new(machine.command(&args)).exits(0).prints(&[
        "etc/systemd/system/wxtoken-central.service (mode 0644)",
        "    + LoadCredential=secrets.d:/etc/wxtoken/secrets",
        "systemctl daemon-reload",
    ]);
    assert!(!machine.path("etc/systemd").exists());
    // That of a person is not replaced.
    fs::create_dir_all(machine.path("etc/systemd/system")).unwrap();
    fs::write(machine.path("etc/systemd/system/wxtoken-serve.service"), "# mine\n").unwrap();
    let ran = Run::new(machine.command(&args)).exits(2);
    ran.says(&["wxtoken-serve.service was not written by wxtoken setup"]);
}

#[test]
fn other_hosts_are_served_by_a_service_of_its_own_or_by_the_one_that_asks() {
    let machine = Machine::with_systemd();
    let serve = ["--serve", "127.0.0.1", "--allow", "10.0.0.0/8,127.0.0.1"];
    let ran = machine.set_up(&[&[APPID][..], &serve].concat(), SECRET).exits(0);
    ran.prints(&[
        "Programs of this host ask with:\n  curl -sS --fail http://127.0.0.1:7200/token\n",
    ]);
    let expected =
        "[serve]\nlisten = [\"127.0.0.1:7200\"]\nallow = [\"10.0.0.0/8\", \"127.0.0.1\"]\n";
    assert!(machine.config().contains(expected), "{}", machine.config());
    let told = machine.told();
    assert_eq!(told[1..3], ["enable wxtoken-serve.service", "restart wxtoken-serve.service"]);
    // Once there is a central server, an account that is added is its.
    let central = [
        "disable --now wxtoken-fetch.timer wxtoken-serve.socket wxtoken-serve.service",
        "enable wxtoken-central.service",
        "restart wxtoken-central.service",
    ];
    machine.set_up(&[APPID, "--central"], SECRET).exits(0);
    assert_eq!(machine.told(), central);
    machine.set_up(&[OTHER, "--name", "shop"], OTHER_SECRET).exits(0);
    assert_eq!(machine.told(), central);
    assert!(machine.wechat.is_alive(&machine.token("shop")));
}

#[test]
fn a_link_where_setup_would_write_is_named_before_the_secret_is_asked_for() {
    use std::os::unix::fs::symlink;
    let machine = Machine::with_systemd();
    fs::create_dir_all(machine.path("elsewhere")).unwrap();
    fs::create_dir(machine.path("etc/wxtoken")).unwrap();
    for name in ["secrets", "wxtoken.toml"] {
        let (to, link) =
            (machine.path("elsewhere").join(name), machine.path("etc/wxtoken").join(name));
        match name {
            "secrets" => fs::create_dir(&to).unwrap(),
            _ => fs::write(&to, "").unwrap(),
        }
        symlink(&to, &link).unwrap();
        for more in [&["--secret-file", "/nonexistent"][..], &["--dry-run"]] {
            let ran = Run::new(machine.command(&[&[APPID][..], more].concat())).exits(2);
            ran.says(&[&format!("{} itself", to.display()), "is a symbolic link"]);
        }
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn the_environment_file_says_no_longer_what_the_config_says() {
    let machine = Machine::with_systemd();
    fs::create_dir(machine.path("etc/wxtoken")).unwrap();
    let file = machine.path("var/lib/wxtoken/own.json");
    let env = format!(
        "# mine\nWXTOKEN_APPID = {APPID}\nWXTOKEN_FILE={}\nWXTOKEN_API=classic\nHTTPS_PROXY=\nWXTOKEN_LISTEN=10.0.0.5:1\n",
        file.display()
    );
    let path = machine.path("etc/wxtoken/wxtoken.env");
    write_with_mode(&path, &env, 0o640);
    // The units would go on with the account that is there.
    let other = machine.set_up(&[OTHER], OTHER_SECRET).exits(2);
    other.says(&["wxtoken.env names the account wx0123456789abcdef"]);
    machine.set_up(&[APPID], SECRET).exits(0);
    // `serve`, which may run, reads it again.
    assert!(machine.told().contains(&"try-restart wxtoken-serve.service".to_owned()));
    let expected = env.replace("WXTOKEN_AP", "#WXTOKEN_AP").replace("WXTOKEN_F", "#WXTOKEN_F");
    assert_eq!(machine.read("etc/wxtoken/wxtoken.env"), expected);
    assert_eq!(machine.mode("etc/wxtoken/wxtoken.env"), 0o640);
    // Readers know the token by this name.
    assert!(machine.wechat.is_alive(&machine.token("default")) && file.exists());
    assert!(machine.config().contains("api = \"classic\""), "{}", machine.config());
    machine.set_up(&[APPID, "--serve", "127.0.0.1:7200"], SECRET).exits(0);
    assert!(machine.read("etc/wxtoken/wxtoken.env").contains("#WXTOKEN_LISTEN"));
    // Units that would look elsewhere, and a file that is not text, are not gone on with.
    for (env, expected) in
        [(&b"WXTOKEN_DIR=/x\n"[..], "WXTOKEN_DIR"), (&b"\xd6\xd0\n"[..], "UTF-8")]
    {
        fs::write(&path, env).unwrap();
        machine.set_up(&[APPID], SECRET).exits(2).says(&["wxtoken.env", expected]);
        assert_eq!(fs::read(&path).unwrap(), env);
    }
    // An AppSecret there is neither shown nor kept.
    write_with_mode(&path, &format!("WXTOKEN_APPID={APPID}\nWXTOKEN_SECRET={SECRET}\n"), 0o600);
    let ran = Run::new(machine.command(&[APPID, "--dry-run"])).exits(0);
    assert!(!ran.stdout.contains(SECRET), "{}", ran.stdout);
    ran.prints(&["    - WXTOKEN_APPID=…\n", "    - WXTOKEN_SECRET=…\n"]);
    machine.set_up(&[APPID], SECRET).exits(0);
    assert_eq!(machine.read("etc/wxtoken/wxtoken.env"), format!("#WXTOKEN_APPID={APPID}\n"));
}

#[test]
fn what_fails_half_way_is_said_and_can_be_run_again() {
    let machine = Machine::with_systemd();
    for command in ["enable --now wxtoken-fetch.timer", "start wxtoken-fetch.service"] {
        fs::write(machine.path("broken"), command).unwrap();
        let ran = machine.set_up(&[APPID], SECRET).exits(1);
        ran.mentions(&["Job failed.", "run the same command again", command]);
    }
    let ran = machine.set_up(&[APPID], SECRET).exits(1);
    ran.mentions(&["the first fetch failed: what the journal says"]);
    fs::remove_file(machine.path("broken")).unwrap();
    machine.set_up(&[APPID], SECRET).exits(0);
    assert!(machine.wechat.is_alive(&machine.token("default")));
}

/// By SIGKILL as each of its directories is made, and before and after each of its files gets its name.
#[needs(strace)]
#[test]
fn killed_at_any_step_it_leaves_whole_files_and_secrets_for_their_owner_alone_and_can_be_run_again()
{
    let machine = Machine::with_systemd();
    let config_dir = machine.path("etc/wxtoken");
    let mut left = BTreeSet::new();
    for (calls, count) in [("mkdir,mkdirat", 2), ("rename,renameat,renameat2", 6)] {
        for nth in 1..=count {
            let mut setup = machine.command(&[APPID]);
            setup.args(["--secret-file", "-"]);
            let fault = format!("inject={calls}:signal=KILL:when={nth}");
            let strace = ["strace", "-qq", "-o", "/dev/null", "-e", &fault];
            let killed = with_input(wrapped(&strace, &setup), SECRET);
            assert_eq!(killed.status.signal(), Some(9), "{fault}: {killed:?}");
            for (path, content) in machine.files() {
                let holds_secret = content.windows(SECRET.len()).any(|it| it == SECRET.as_bytes());
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                assert!(!holds_secret || mode == 0o600, "{fault}: {mode:o} {}", path.display());
                let is_kept = path.starts_with(&config_dir) && path.is_file();
                left.extend(is_kept.then(|| path.file_name().unwrap().to_owned()));
            }
            machine.set_up(&[APPID], SECRET).exits(0);
            assert!(machine.wechat.is_alive(&machine.token("default")), "{fault}");
            let config = machine.config();
            assert!(
                config.contains("[account.default]\nappid = \"wx0123456789abcdef\"\n"),
                "{fault}: {config}"
            );
            let names: Vec<_> = fs::read_dir(&config_dir).unwrap().map(Result::unwrap).collect();
            assert_eq!(names.len(), 3, "{fault}: nothing but config, lock and secrets: {names:?}");
            fs::remove_dir_all(&config_dir).unwrap();
        }
    }
    // The faults were at steps that differ.
    for name in [".default.secret.tmp", "default.secret", ".wxtoken.toml.tmp"] {
        assert!(left.contains(OsStr::new(name)), "{name}: {left:?}");
    }
}

#[test]
fn what_people_type_wrongly_is_named_and_never_repeated() {
    let machine = Machine::with_systemd();
    let before = machine.files();
    let quoted = format!("“{SECRET}”");
    for (args, secret, expected) in [
        (&[SECRET][..], APPID, "this is an AppSecret"),
        (&[APPID], APPID, "this is an AppID"),
        (&[APPID], &quoted, "quotation marks"),
        (&[APPID], "", "there is no AppSecret"),
        (&[APPID], &SECRET[..31], "31 characters"),
        (&[APPID], &format!("AppSecret: {SECRET}"), "Give the AppSecret alone"),
        (&["AppID:wx0123456789abcdef"], SECRET, "Give the AppID alone"),
        (&["ｗｘ0123456789abcdef"], SECRET, "input method"),
        (&["wx0123456789 abcdef"], SECRET, "blanks"),
        (&[CORP], CORP_SECRET, "Add --work"),
        (&[APPID], CORP_SECRET, "Add --work"),
        (&[CORP, "--work"], SECRET, "leave --work out"),
        (&["--work", "--api", "stable", CORP], SECRET, "cannot be used together"),
        (&[APPID, "--name", "My Shop"], SECRET, "--name"),
        (&[APPID, "--name", SECRET], SECRET, "form of an AppSecret"),
        (&[APPID, "--serve", "10.0.0.5:7200"], SECRET, "--allow 10.0.0.0/8"),
        (&[APPID, "--serve", "central"], SECRET, "Write an address of this host and a port"),
        (&[APPID, "--serve", "127.0.0.1:1", "--allow", "10.0.0.5/8"], SECRET, "10.0.0.0/8"),
        (&[APPID, "--allow", "10.0.0.0/8"], SECRET, "goes with --serve"),
        (&[APPID, "--config", "x.toml"], SECRET, "Leave it out"),
    ] {
        let ran = machine.set_up(args, secret).exits(2).mentions(&[expected]);
        assert_eq!(ran.stdout, "");
        for hidden in [SECRET, CORP_SECRET, &SECRET[..31]] {
            assert!(!ran.stderr.contains(hidden), "{}", ran.stderr);
        }
    }
    let ran = Run::new(machine.command(&[APPID])).exits(2);
    ran.says(&["no terminal", "--secret-file"]);
    assert!(machine.files() == before);
    assert_eq!(machine.wechat.asked(), 0);
}

#[test]
fn units_of_an_earlier_version_and_a_secret_that_systemd_cannot_pass_are_named_before_anything_is_asked()
 {
    let machine = Machine::with_systemd();
    let unit = machine.path("usr/lib/systemd/system/wxtoken-fetch.service");
    let now = fs::read_to_string(&unit).unwrap();
    fs::write(&unit, now.replace("secrets.d:", "default.secret:")).unwrap();
    machine.set_up(&[APPID], SECRET).exits(2).says(&["wxtoken-fetch.service", "earlier version"]);
    fs::write(&unit, now).unwrap();
    fs::create_dir_all(machine.path("etc/wxtoken/secrets")).unwrap();
    let odd = machine.path("etc/wxtoken/secrets/公众号.secret");
    fs::write(&odd, "x").unwrap();
    machine.set_up(&[APPID], SECRET).exits(2).says(&["公众号.secret", "ASCII"]);
    fs::remove_file(odd).unwrap();
    assert_eq!(machine.wechat.asked(), 0);
    machine.set_up(&[APPID], SECRET).exits(0);
}

#[needs(script)]
#[test]
fn once_the_address_is_on_the_allowlist_enter_asks_again_and_until_then_nothing_is_written() {
    let machine = Machine::with_systemd();
    let mut typist = Typist::at(&machine.command(&[APPID]));
    typist.wait_for("(not shown): ");
    machine.wechat.fault("errcode:40164");
    typist.type_in(&format!("{SECRET}\n"));
    typist.wait_for("Add IP 203.0.113.9 to the account's API IP allowlist");
    typist.wait_for("mp.weixin.qq.com");
    typist.wait_for("Then press Enter");
    // Not yet.
    typist.type_in("\n");
    typist.wait_for("Then press Enter");
    assert!(!machine.path("etc/wxtoken").exists());
    machine.wechat.fault("none");
    typist.type_in("\n");
    let shown = typist.end();
    assert!(shown.contains("WeChat accepts") && shown.contains("status 0"), "{shown}");
    for (keys, status) in [("\u{3}", "status 130"), ("\u{4}", "status 4")] {
        let mut typist = Typist::at(&machine.command(&[OTHER, "--name", "shop"]));
        typist.wait_for("(not shown): ");
        machine.wechat.fault("errcode:40164");
        typist.type_in(&format!("{OTHER_SECRET}\n"));
        typist.wait_for("Then press Enter");
        typist.type_in(keys);
        let shown = typist.end();
        assert!(shown.contains(status) && !shown.contains(" -echo "), "{shown}");
        assert!(!machine.config().contains("shop"));
    }
}

#[test]
fn the_filter_of_the_service_lets_public_addresses_through_that_may_ask() {
    let machine = Machine::with_systemd();
    let filter = "etc/systemd/system/wxtoken-serve.service.d/allow.conf";
    let serve =
        |allow: &str| machine.set_up(&[APPID, "--serve", "127.0.0.1", "--allow", allow], SECRET);
    serve("10.1.0.0/16,fd00::/8").exits(0);
    assert!(!machine.path(filter).exists());
    machine.told();
    let networks = "203.0.113.0/24,2001:db8::7,10.0.0.0/7";
    serve(networks).exits(0).prints(&["allow.conf (mode 0644)"]);
    let text = machine.read(filter);
    let rules = "[Service]\nIPAddressAllow=203.0.113.0/24\nIPAddressAllow=2001:db8::7/128\nIPAddressAllow=10.0.0.0/7\n";
    assert!(text.ends_with(rules), "{text}");
    let told = machine.told();
    let at = |command: &str| told.iter().position(|it| it == command);
    assert!(at("daemon-reload") < at("restart wxtoken-serve.service"), "{told:?}");
    serve(networks).exits(0);
    assert!(!machine.told().contains(&"daemon-reload".to_owned()));
    // The other service has no filter.
    fs::remove_file(machine.path(filter)).unwrap();
    let central = [APPID, "--central", "--serve", "127.0.0.1", "--allow", "203.0.113.0/24"];
    machine.set_up(&central, SECRET).exits(0);
    assert!(!machine.path(filter).exists());
}

#[test]
fn where_systemd_listens_in_place_of_the_service_another_address_is_refused() {
    let machine = Machine::with_systemd();
    let wants = machine.path("etc/systemd/system/sockets.target.wants");
    fs::create_dir_all(&wants).unwrap();
    std::os::unix::fs::symlink("/x", wants.join("wxtoken-serve.socket")).unwrap();
    let before = machine.files();
    let ran = machine.set_up(&[APPID, "--serve", "127.0.0.1"], SECRET).exits(2);
    ran.says(&["wxtoken-serve.socket", "ListenStream"]);
    assert!(machine.files() == before && machine.wechat.asked() == 0);
    machine.set_up(&[APPID], SECRET).exits(0);
    // The other service does not use it.
    machine.set_up(&[APPID, "--central", "--serve", "127.0.0.1"], SECRET).exits(0);
}

/// A command on a terminal, at which a person types.
struct Typist {
    child: std::process::Child,
    shown: String,
}

impl Typist {
    /// Runs the command, and after it `stty`, which tells how the terminal was left.
    fn at(command: &Command) -> Typist {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        // The shell goes on after Ctrl-C.
        let line = format!("trap : INT; {}; echo status $?; stty -a; echo over", words.join(" "));
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        // The tests may have been started without Ctrl-C's signal.
        let mut script = with_default_signals(&script);
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Typist { child: script.spawn().unwrap(), shown: String::new() }
    }

    /// Waits until the terminal shows this after what was waited for before, and returns all that it has shown.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let stdout = self.child.stdout.as_mut().unwrap();
        let begun = self.shown.len();
        let mut byte = [0; 1];
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains(text) {
            let read = stdout.read(&mut byte).unwrap();
            assert!(
                read > 0,
                "never {text:?}:\n{}{}",
                &self.shown[..begun],
                String::from_utf8_lossy(&bytes)
            );
            bytes.push(byte[0]);
        }
        self.shown += &String::from_utf8_lossy(&bytes);
    }

    fn type_in(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits for the end, and returns all that the terminal has shown.
    fn end(mut self) -> String {
        self.wait_for("over");
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.shown
    }
}

#[needs(script)]
#[test]
fn promise_5_the_terminal_does_not_show_the_secret_and_shows_again_what_is_typed_after_it() {
    let machine = Machine::with_systemd();
    let mut typist = Typist::at(&machine.command(&[APPID]));
    typist.wait_for("AppSecret of wx0123456789abcdef (not shown): ");
    typist.type_in(&format!("{APPID}\n"));
    typist.wait_for("this is an AppID");
    typist.wait_for("(not shown): ");
    typist.type_in(&format!("{SECRET}\n"));
    let shown = typist.end();
    assert!(shown.contains("status 0") && !shown.contains(SECRET), "{shown}");
    assert!(!shown.contains(" -echo ") && shown.contains(" echo "), "{shown}");
    // Enter keeps the secret that is there.
    let mut typist = Typist::at(&machine.command(&[APPID]));
    typist.wait_for("Enter keeps the one that is there): ");
    typist.type_in("\n");
    assert!(typist.end().contains("status 0"));
    // A signal meanwhile.
    let mut typist = Typist::at(&machine.command(&[OTHER, "--name", "shop"]));
    typist.wait_for("(not shown): ");
    typist.type_in("0f1e2d3c\u{3}");
    let shown = typist.end();
    assert!(shown.contains("status 130") && !shown.contains("0f1e2d3c"), "{shown}");
    assert!(!shown.contains(" -echo ") && shown.contains(" echo "), "{shown}");
    assert!(!machine.config().contains("shop"));
}

#[needs(script)]
#[test]
fn what_others_write_while_the_secret_is_asked_for_is_not_lost() {
    let machine = Machine::with_systemd();
    machine.set_up(&[APPID], SECRET).exits(0);
    let env = machine.path("etc/wxtoken/wxtoken.env");
    fs::write(&env, "# mine\n").unwrap();
    for path in [machine.path("etc/wxtoken/wxtoken.toml"), env] {
        let secrets = machine.path("etc/wxtoken/secrets");
        let mut typist = Typist::at(&machine.command(&[OTHER, "--name", "shop"]));
        typist.wait_for("(not shown): ");
        let text = fs::read_to_string(&path).unwrap() + "# meanwhile\n";
        fs::write(&path, &text).unwrap();
        typist.type_in(&format!("{OTHER_SECRET}\n"));
        let shown = typist.end();
        assert!(shown.contains("was changed meanwhile"), "{shown}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert!(!secrets.join("shop.secret").exists());
    }
    machine.set_up(&[OTHER, "--name", "shop"], OTHER_SECRET).exits(0);
    assert!(machine.config().contains("# meanwhile\n"));
}

#[needs(root, strace)]
#[test]
fn without_systemd_cron_runs_fetch_as_a_user_who_owns_the_secrets() {
    use std::os::unix::fs::MetadataExt;
    let machine = Machine::bare();
    fs::create_dir_all(machine.path("etc/cron.d")).unwrap();
    fs::set_permissions(machine.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let line = format!("wxtoken:x:{OTHER_USER}:{OTHER_USER}::/:/bin/false\n");
    fs::write(machine.path("etc/passwd"), line).unwrap();
    // A program that users besides root could replace is installed as a copy.
    let copy = machine.path("open/wxtoken");
    fs::create_dir(machine.path("open")).unwrap();
    fs::set_permissions(machine.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(Command::new("cp").arg(wxtoken().get_program()).arg(&copy).status().unwrap().success());
    // What users besides root may do with it is not left to the umask.
    let command = || {
        let program = with_environment_of(&wxtoken(), &copy);
        let command = machine.command_of(program, &[APPID, "--secret-file", "-"]);
        let mut shell = with_environment_of(&command, "/bin/sh");
        shell.args(["-c", "umask 0; exec \"$0\" \"$@\""]).arg(&copy).args(command.get_args());
        shell
    };
    // A directory that a killed run has made is as the next run needs it.
    let local = machine.path("usr/local");
    let faults = ["-P", local.to_str().unwrap(), "-e", "inject=fchmod:signal=KILL"];
    let killed = with_faults(&faults, &machine.path("trace"), &command());
    assert!(with_input(killed, SECRET).status.code().is_none());
    assert!(local.exists() && !local.join("bin").exists());
    let set_up = || with_input(command(), SECRET);
    set_up().exits(0).prints(&[
        "usr/local/bin/wxtoken",
        "secrets/default.secret (0600)",
        "sudo -u wxtoken wxtoken check",
    ]);
    for name in ["usr", "usr/local", "usr/local/bin", "usr/local/bin/wxtoken", "etc/wxtoken"] {
        assert_eq!(machine.mode(name), 0o755, "{name}");
    }
    let owner = |name: &str| fs::metadata(machine.path(name)).unwrap().uid();
    for name in ["etc/wxtoken/secrets", "etc/wxtoken/secrets/default.secret", "var/lib/wxtoken"] {
        assert_eq!(owner(name), OTHER_USER, "{name}");
    }
    // One that was put there by hand could not be read by it.
    let secret = machine.path("etc/wxtoken/secrets/default.secret");
    std::os::unix::fs::chown(&secret, Some(0), Some(0)).unwrap();
    set_up().exits(0).prints(&["write ", "secrets/default.secret (mode 0600)"]);
    assert_eq!(owner("etc/wxtoken/secrets/default.secret"), OTHER_USER);
    assert_eq!((owner("etc/wxtoken"), owner("etc/wxtoken/wxtoken.toml")), (0, 0));
    assert_eq!(owner("var/lib/wxtoken/default.json"), OTHER_USER);
    // Root looks after the account without a word of whose its files are, and need not type the secret again.
    let config = machine.path("etc/wxtoken/wxtoken.toml");
    for words in [&["fetch", "--force"][..], &["check"]] {
        let mut command = wxtoken();
        command.args(words).arg("-c").arg(&config);
        Run::new(command).exits(0);
    }
    Run::new(machine.command_of(with_environment_of(&wxtoken(), &copy), &[APPID])).exits(0);
    assert_eq!(owner("var/lib/wxtoken/default.json"), OTHER_USER);
    let cron = machine.read("etc/cron.d/wxtoken");
    let fetch = "* * * * * wxtoken [ -x /usr/local/bin/wxtoken ] && /usr/local/bin/wxtoken fetch";
    assert!(cron.ends_with(&format!("\n{fetch}\n")), "{cron}");
    // What a person adds stays.
    let cron = cron.replace("MAILTO=root\n", "MAILTO=root\nHTTPS_PROXY=\n");
    for before in [cron.clone(), cron.replace(fetch, "* * * * * wxtoken /b/wxtoken fetch")] {
        fs::write(machine.path("etc/cron.d/wxtoken"), before).unwrap();
        set_up().exits(0);
        assert_eq!(machine.read("etc/cron.d/wxtoken"), cron);
    }
    // So does a line that does more than fetch, and a comment that has such a line.
    let more = "#* * * * * wxtoken /b/wxtoken fetch\n* * * * * wxtoken /x && /b/wxtoken fetch\n";
    fs::write(machine.path("etc/cron.d/wxtoken"), cron.replace(fetch, more)).unwrap();
    set_up().exits(0).prints(&["run it, too.\n    * * * * * wxtoken /x &&"]);
    let expected = format!("{}{fetch}\n", cron.replace(fetch, more).trim_end().to_owned() + "\n");
    assert_eq!(machine.read("etc/cron.d/wxtoken"), expected);
    // One that was written by a person stays.
    fs::write(machine.path("etc/cron.d/wxtoken"), "* * * * * me x\n").unwrap();
    set_up().exits(2).says(&["etc/cron.d/wxtoken", "Move it away"]);
}

/// As README has it: a first `fetch` by hand, as root, and `setup` afterwards. With the Debian package the directory is the
/// service's before, and systemd leaves what is in it.
#[needs(root)]
#[test]
fn what_root_has_published_before_is_the_services_after_setup() {
    use std::os::unix::fs::{MetadataExt, chown};
    for has_systemd in [false, true] {
        let machine = if has_systemd { Machine::with_systemd() } else { Machine::bare() };
        fs::create_dir_all(machine.path("etc/cron.d")).unwrap();
        fs::set_permissions(machine.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let line = format!("wxtoken:x:{OTHER_USER}:{OTHER_USER}::/:/bin/false\n");
        fs::write(machine.path("etc/passwd"), line).unwrap();
        let secret = machine.path("secret");
        write_with_mode(&secret, SECRET, 0o600);
        let dir = machine.path("var/lib/wxtoken");
        let mut fetch = wxtoken();
        fetch.args(["fetch", "--appid", APPID, "--base-url", &machine.wechat.url()]);
        fetch.arg("--secret-file").arg(secret).arg("--dir").arg(&dir);
        Run::new(fetch).exits(0).silent();
        fs::write(dir.join("notes"), "root's own").unwrap();
        if has_systemd {
            chown(&dir, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
        }
        let files = ["json", "lock", "state"].map(|end| dir.join(format!("default.{end}")));
        let owners = || files.each_ref().map(|file| fs::metadata(file).unwrap().uid());
        let chown = "  chown wxtoken: ";
        Run::new(machine.command(&[APPID, "--dry-run"])).exits(0).prints(&[chown]);
        assert_eq!(owners(), [0; 3]);
        machine.set_up(&[APPID], SECRET).exits(0).prints(&[chown]);
        assert_eq!(owners(), [OTHER_USER; 3]);
        assert_eq!(fs::metadata(dir.join("notes")).unwrap().uid(), 0);
        let again = machine.set_up(&[APPID], SECRET).exits(0);
        assert!(!again.stdout.contains(chown), "{}", again.stdout);
    }
}

/// Returns the home of another user, with a `crontab` in `bin` that keeps the user's lines in `table`.
fn home_with_crontab(sandbox: &Sandbox) -> PathBuf {
    let home = sandbox.path("home");
    fs::create_dir_all(home.join("bin")).unwrap();
    let crontab = "#!/bin/sh\ncase $1 in\n-l) if [ -e \"$HOME/table\" ]; then cat \"$HOME/table\"; else\n\
                   echo 'no crontab for me' >&2; exit 1; fi ;;\n-) cat >\"$HOME/table\" ;; esac\n";
    write_program(&home.join("bin/crontab"), crontab);
    std::os::unix::fs::chown(&home, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    home
}

#[needs(root)]
#[test]
fn fetch_finds_what_was_set_up_in_directories_that_cron_and_systemd_do_not_know() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let (program, home) = (open_to_all(&sandbox.path("")), home_with_crontab(&sandbox));
    let (config, state) = (home.join("my 100% config"), home.join("state"));
    let own = |command: &mut Command, path: &str| {
        command.env("HOME", &home).env("PATH", path);
        command.env("XDG_CONFIG_HOME", &config).env("XDG_STATE_HOME", &state);
    };
    let bin = format!("{}:/usr/bin:/bin", home.join("bin").display());
    let run = |words: &[&str]| {
        let mut command = wxtoken();
        own(command.args(words), &bin);
        with_input(by_other_user(&program, &command), SECRET)
    };
    let setup = ["setup", APPID, "--secret-file", "-", "--base-url", &wechat.url()];
    run(&setup).exits(0);
    assert!(config.join("wxtoken/wxtoken.toml").exists());
    let token = run(&["get", "-r"]).exits(0).stdout;
    let table = fs::read_to_string(home.join("table")).unwrap();
    run(&setup).exits(0);
    assert_eq!(fs::read_to_string(home.join("table")).unwrap(), table);
    // As cron runs it, with nothing of the shell's environment.
    let line = table.strip_prefix("* * * * * ").unwrap().replace("\\%", "%");
    let line = format!("{} --force default", line.trim_end());
    let mut cron = Command::new("/bin/sh");
    cron.args(["-c", &line]).env_clear().env("HOME", &home).env("PATH", "/usr/bin:/bin");
    cron.uid(OTHER_USER).gid(OTHER_USER);
    Run::from_output(cron.output().unwrap()).exits(0);
    let fetched = run(&["get", "-r"]).exits(0).stdout;
    assert_ne!(fetched, token);
    assert!(wechat.is_alive(fetched.trim()));
    // The user's own systemd is told where the units are, and the unit what they need.
    fs::remove_file(home.join("bin/crontab")).unwrap();
    for name in ["systemctl", "loginctl"] {
        let script = format!("#!/bin/sh\necho {name} \"$@\" >>\"$HOME/told\"\n");
        write_program(&home.join("bin").join(name), &script);
    }
    fs::create_dir_all(home.join("run/systemd")).unwrap();
    fs::write(home.join("run/systemd/private"), "").unwrap();
    let mut command = wxtoken();
    own(command.args(setup), &home.join("bin").display().to_string());
    command.env("XDG_RUNTIME_DIR", home.join("run"));
    with_input(by_other_user(&program, &command), SECRET).exits(0);
    let told = fs::read_to_string(home.join("told")).unwrap();
    let units = config.join("systemd/user");
    let [service, timer] = ["service", "timer"].map(|it| units.join(format!("wxtoken-fetch.{it}")));
    let link = format!("systemctl --user link {} {}", service.display(), timer.display());
    assert_eq!(told.lines().next(), Some(link.as_str()));
    let unit = fs::read_to_string(service).unwrap();
    let escaped = config.display().to_string().replace('%', "%%");
    for set in [
        format!("\nEnvironment=\"XDG_CONFIG_HOME={escaped}\"\n"),
        format!("\nEnvironment=XDG_STATE_HOME={}\n", state.display()),
    ] {
        assert!(unit.contains(&set), "{unit}");
    }
}

#[needs(root)]
#[test]
fn without_root_the_users_own_config_and_crontab_are_set_up() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let (program, home) = (open_to_all(&sandbox.path("")), home_with_crontab(&sandbox));
    let run = |words: &[&str], input: &str| {
        let mut command = wxtoken();
        command.args(words).env("HOME", &home).env_remove("XDG_CONFIG_HOME");
        command.env("PATH", format!("{}:/usr/bin:/bin", home.join("bin").display()));
        with_input(by_other_user(&program, &command), input)
    };
    let setup = ["setup", APPID, "--secret-file", "-", "--base-url", &wechat.url()];
    run(&setup, SECRET).exits(0).prints(&["\n  wxtoken status "]);
    let table = fs::read_to_string(home.join("table")).unwrap();
    // Once the program is removed, cron has nothing to send a mail about.
    let path = program.display();
    assert_eq!(table, format!("* * * * * [ -x {path} ] && {path} fetch\n"));
    let mode = |name: &str| fs::metadata(home.join(name)).unwrap().permissions().mode() & 0o777;
    let config = ".config/wxtoken";
    assert_eq!(mode(&format!("{config}/secrets")), 0o700);
    assert_eq!(mode(&format!("{config}/secrets/default.secret")), 0o600);
    // What the user and cron type from now on finds it.
    let token = run(&["get", "-r"], "").exits(0).stdout;
    assert!(wechat.is_alive(token.trim()));
    run(&["fetch", "--force", "default"], "").exits(0);
    assert_ne!(run(&["get", "-r"], "").exits(0).stdout, token);
    run(&setup, SECRET).exits(0);
    assert_eq!(fs::read_to_string(home.join("table")).unwrap(), table);
    // A line that does nothing but fetch is replaced, and shown. One that does more stays, and is named.
    let own = format!("* * * * * {path} fetch --appid {APPID} --secret-file /s");
    let others = format!("*/5 * * * * {path} fetch && /home/me/push\n");
    fs::write(home.join("table"), format!("{own}\n{others}")).unwrap();
    let lost = format!("    - {own}\n");
    run(&setup, SECRET).exits(0).prints(&[&lost, "crontab run it, too", &format!("    {others}")]);
    let mended = fs::read_to_string(home.join("table")).unwrap();
    assert_eq!(mended, format!("{others}{table}"));
    fs::write(home.join("table"), format!("WXTOKEN_DIR=/x\n{table}")).unwrap();
    run(&setup, SECRET).exits(2).says(&["WXTOKEN_DIR is in your crontab"]);
    // A crontab that cannot be read as it is stays.
    let foreign = b"# \xd6\xd0\n0 1 * * * b\n";
    fs::write(home.join("table"), foreign).unwrap();
    run(&setup, SECRET).exits(2).says(&["cannot read your crontab: it is not UTF-8"]);
    write_program(&home.join("bin/crontab"), "#!/bin/sh\necho 'not allowed' >&2\nexit 1\n");
    run(&setup, SECRET).exits(2).says(&["cannot read your crontab", "not allowed"]);
    assert_eq!(fs::read(home.join("table")).unwrap(), foreign);
    // Without cron it is the user's own systemd.
    fs::remove_file(home.join("bin/crontab")).unwrap();
    for name in ["systemctl", "loginctl"] {
        let script = format!("#!/bin/sh\necho {name} \"$@\" >>\"$HOME/told\"\n");
        write_program(&home.join("bin").join(name), &script);
    }
    fs::create_dir_all(home.join("run/systemd")).unwrap();
    fs::write(home.join("run/systemd/private"), "").unwrap();
    let mut command = wxtoken();
    command.args(setup).env("HOME", &home).env_remove("XDG_CONFIG_HOME");
    command.env("PATH", home.join("bin")).env("XDG_RUNTIME_DIR", home.join("run"));
    with_input(by_other_user(&program, &command), SECRET).exits(0);
    let told = fs::read_to_string(home.join("told")).unwrap();
    let told: Vec<_> = told.lines().collect();
    assert_eq!(
        told,
        [
            "systemctl --user daemon-reload",
            "systemctl --user enable --now wxtoken-fetch.timer",
            "loginctl enable-linger"
        ]
    );
    let unit = fs::read_to_string(home.join(".config/systemd/user/wxtoken-fetch.service")).unwrap();
    assert!(unit.contains(&format!("\nExecStart={} fetch\n", program.display())), "{unit}");
    // Users may not let it go on without them: the rest is done all the same.
    write_program(&home.join("bin/loginctl"), "#!/bin/sh\necho 'Access denied' >&2\nexit 1\n");
    with_input(by_other_user(&program, &command), SECRET).exits(0).prints(&[
        "The token is fetched from now on.",
        "The timer stops when you log out",
        "sudo loginctl enable-linger",
        "Access denied",
    ]);
}
