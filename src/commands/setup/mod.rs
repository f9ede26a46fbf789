//! `wxtoken setup`: sets an account up on this host, from its AppID and AppSecret to a token that stays fresh. Asks WeChat
//! before anything is written. Each step can be done again, so that a setup which fails half-way is run again.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use zeroize::Zeroizing;

use self::account::{ServiceProxy, SetupTarget};
use self::env_file::EnvFile;
use self::host::{FetchRunner, SetupHost, USER};
use self::plan::{FETCH, Wanted};
use self::prompt::Terminal;
use self::step::{AGAIN, SetupStep};
use super::{check, fetch, output};
use crate::cli::{AccountArgs, CheckArgs, CheckFormat, CommonArgs, FetchArgs, SetupArgs};
use crate::config::AccountSettings;
use crate::config::edit::ConfigEdit;
use crate::error::Exit;
use crate::language::{self, Language, bilingual, in_both};
use crate::message::cannot;
use crate::model::account::Account;
use crate::model::api::Api;
use crate::model::errcode::{Class, Platform};
use crate::model::secret::Secret;
use crate::os::clock::{Clock, SystemClock};
use crate::os::fault::{Operation, explained};
use crate::os::file::lock::FileLock;
use crate::os::file::read;
use crate::upstream::connect::{self, Connector};
use crate::upstream::credentials;
use crate::upstream::{RefreshMode, UpstreamError};

mod account;
mod cron;
mod env_file;
mod host;
pub(super) mod input;
pub(super) mod messages;
mod plan;
mod prompt;
mod report;
mod step;
mod units;

/// How long WeChat may take to answer, and the writer of a pipe in place of a secret file.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The size of the largest file in which a secret is looked for.
const MAX_SECRET_FILE: u64 = 4096;

/// How often a person may answer a question wrongly.
const MAX_ANSWERS: usize = 3;

/// Runs `wxtoken setup`.
pub(super) fn run(common: &CommonArgs, args: &SetupArgs) -> Result<Exit> {
    refuse_others(common)?;
    let target = SetupTarget::of(args)?;
    let host = SetupHost::detect(args.root.as_deref())?;
    host.check_config_dir()?;
    let env_file = match host.runner {
        FetchRunner::Systemd => EnvFile::read(host.path("etc/wxtoken/wxtoken.env"))?,
        _ => EnvFile::default(),
    };
    env_file.check()?;
    let mut config = ConfigEdit::open(host.config(), &host.new_config())?;
    let common = &CommonArgs {
        config: Some(host.config().to_owned()),
        dir: None,
        has_names: true,
        ..common.clone()
    };
    let account = account::add(&mut config, &target, &env_file, common)?;
    let is_central = args.central || host.has_central();
    let plan = |secret: Zeroizing<String>| {
        let wanted = Wanted {
            host: &host,
            config: &config,
            env_file: &env_file,
            name: &account.name,
            appid: &target.appid,
            secret,
            is_central,
            is_served: !target.listen.is_empty(),
        };
        wanted.steps()
    };
    // Whatever is wrong with the host is said before a secret is asked for.
    let steps = plan(Zeroizing::default())?;
    steps.iter().try_for_each(SetupStep::check)?;
    if args.dry_run {
        let mut preview = report::preview(&steps, &host, is_central);
        if args.secret_file.is_some() {
            let secret = secret(args.secret_file.as_ref(), &target, None)?;
            target.check_app(&account, &env_file, &secret)?;
        } else if target.may_be_other_app(&account) {
            preview += &report::other_app(&account.name);
        }
        output::print(&preview)?;
        return Ok(Exit::Done);
    }
    let secret = secret(args.secret_file.as_ref(), &target, account.secret.clone())?;
    target.check_app(&account, &env_file, &secret)?;
    ask(&account.settings, &secret)?;
    output::print(&report::line(bilingual!(
        "WeChat accepts AppID and AppSecret.",
        "微信已接受 AppID 和 AppSecret。"
    )))?;
    if account.proxy == ServiceProxy::WithPassword {
        // Before the first fetch, which fails without it.
        output::print(&report::line(report::NEEDS_PROXY))?;
    }
    let _lock = lock(&host)?;
    config.check_unchanged()?;
    env_file.check_unchanged()?;
    let left = execute(plan(Zeroizing::new(format!("{}\n", secret.expose())))?, &host)?;
    let fetched = first_fetch(common, &host, &account.name, is_central);
    let checked = match host.runner {
        FetchRunner::Cron => as_service(&host, "check", &account.name),
        _ => check::run(common, &check_args(&account.name)),
    };
    fetched.map_err(again)?;
    let checked = checked.map_err(again)?;
    let names = config.accounts()?.len();
    let after = report::SetupReport {
        host: &host,
        name: (names > 1).then_some(&account.name),
        listen: &target.listen,
        is_central,
        has_tls: config.has_serving("tls_cert"),
        has_keys: config.has_serving("keys"),
    };
    output::print(&after.text())?;
    output::print(&left)?;
    Ok(checked)
}

/// Does the steps, and says each that changed something. Returns what is left to a person, as lines.
fn execute(steps: Vec<SetupStep>, host: &SetupHost) -> Result<String> {
    let mut left = String::new();
    for step in steps {
        match (step.execute(host), step.otherwise()) {
            (Ok(false), _) => {}
            (Ok(true), _) => output::print(&step.report())?,
            (Err(err), Some(otherwise)) => left.push_str(&format!("{otherwise} [{err:#}]\n")),
            (Err(err), None) => return Err(again(err)),
        }
    }
    Ok(left)
}

/// Keeps other setups from changing files until it is dropped. Makes the directory of the config for that.
fn lock(host: &SetupHost) -> Result<FileLock> {
    let path = host.config().with_file_name("setup.lock");
    let step = host.config_dir();
    if !path.parent().is_some_and(Path::exists) && step.execute(host).map_err(again)? {
        output::print(&format!("  {}\n", step.summary()))?;
    }
    let clock = SystemClock;
    let lock = FileLock::acquire(&path, &clock, clock.instant() + TIMEOUT)?;
    lock.ok_or_else(|| Exit::Failure.error(messages::OTHER_SETUP.with([&path.display()])))
}

/// Fails for options of every verb that would name another place than the one where the services look.
fn refuse_others(common: &CommonArgs) -> Result<()> {
    for id in ["config", "dir"] {
        if common.typed.has(id) {
            return Err(Exit::Usage.error(messages::ELSEWHERE.with([&id])));
        }
    }
    match credentials::has_variable() {
        true => Err(Exit::Usage.error(messages::SECRET_VARIABLE.with([&credentials::VARIABLE]))),
        false => Ok(()),
    }
}

/// Returns the AppSecret: that of the named file, or of the terminal, or the one that is there.
fn secret(file: Option<&PathBuf>, target: &SetupTarget, there: Option<Secret>) -> Result<Secret> {
    if let Some(path) = file {
        let bytes = match path.as_os_str() == "-" {
            true => read_stdin()?,
            false => {
                let name = path.display();
                read::read_secret_or_pipe(path, MAX_SECRET_FILE, TIMEOUT).map_err(|err| {
                    let what = cannot("read secret file", "读取 AppSecret 文件", name);
                    Exit::Usage.error(format!("{what}: {err}"))
                })?
            }
        };
        return input::secret(&bytes, target.api).map_err(|what| Exit::Usage.error(what));
    }
    let Some(terminal) = Terminal::open() else {
        return there.ok_or_else(|| Exit::Usage.error(messages::NO_TERMINAL.text()));
    };
    let noun = if target.api == Api::Work { "Secret" } else { "AppSecret" };
    let keeping = match there {
        Some(_) => in_both("; Enter keeps the one that is there", "；直接回车则沿用现有的"),
        None => String::new(),
    };
    let question = in_both(
        format!("{noun} of {} (not shown", target.appid),
        format!("请输入 {} 的 {noun}（不会显示", target.appid),
    );
    let question = format!("{question}{keeping}{}", in_both("): ", "）："));
    for _ in 0..MAX_ANSWERS {
        let answer = terminal.ask(&Language::of_process().resolve(&question));
        let answer = answer.context(messages::TERMINAL_FAILS.text())?;
        if let (b"" | b"\n", Some(secret)) = (answer.as_slice(), &there) {
            return Ok(secret.clone());
        }
        match input::secret(&answer, target.api) {
            Ok(secret) => return Ok(secret),
            Err(what) => {
                let what = format!("{what}\n");
                terminal.say(&Language::of_process().resolve(&what))?;
            }
        }
    }
    Err(Exit::Usage.error(messages::NO_SECRET.text()))
}

fn read_stdin() -> Result<Zeroizing<Vec<u8>>> {
    use std::io::Read;
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_FILE as usize));
    let stdin = std::io::stdin().lock();
    stdin.take(MAX_SECRET_FILE).read_to_end(&mut bytes).context(messages::NO_STDIN.text())?;
    Ok(bytes)
}

/// Requests a token, in a way that invalidates none. While an address is not on the IP allowlist, a person at the terminal can
/// add it, and WeChat is asked again. Fails with what to do if WeChat cannot be asked, or refuses.
fn ask(settings: &AccountSettings, secret: &Secret) -> Result<()> {
    let AccountSettings { account, upstream, .. } = settings;
    let api = match account.api {
        Api::Classic => Api::Stable,
        api => api,
    };
    let account = Account { api, ..account.clone() };
    let (client, _) = Connector::within(TIMEOUT).parts(&account.name, upstream);
    let upstream = connect::upstream(&account, client?, Some(secret.clone()))?;
    let terminal = Terminal::open();
    loop {
        let err = match upstream.request_token(RefreshMode::Normal, TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(err) => err,
        };
        if let (UpstreamError::Refused(refusal), Some(terminal)) = (&err, &terminal)
            && refusal.class() == Class::Allowlist
            && let place = allowlist_place(account.api.platform())
            && terminal.confirm(&format!("{refusal}\n{place}\n{WHEN_ALLOWED}"))?
        {
            continue;
        }
        let written = bilingual!(
            "Nothing was written: run the same command again then.",
            "未写入任何文件：处理后请重新运行同一命令。"
        );
        return Err(err.exit().error(format!("{err} {written}")));
    }
}

/// Returns where in WeChat's consoles the allowlist is.
fn allowlist_place(platform: Platform) -> &'static str {
    match platform {
        Platform::Official => bilingual!(
            "It is on the page with the AppSecret. Official account, at developers.weixin.qq.com/platform: 我的业务, 公众号, \
             基础信息, 开发密钥, API IP 白名单; mini program, at mp.weixin.qq.com: 管理, 开发管理, 开发设置, IP 白名单.",
            "位于 AppSecret 所在页面。公众号：微信开发者平台（developers.weixin.qq.com/platform）“我的业务 → 公众号 → 基础信息 → 开发密钥 → API IP 白名单”；\
             小程序：mp.weixin.qq.com“管理 → 开发管理 → 开发设置 → IP 白名单”。"
        ),
        Platform::Work => bilingual!(
            "It is at work.weixin.qq.com: 应用管理, the app, 企业可信IP.",
            "位于 work.weixin.qq.com“应用管理 → 该应用 → 企业可信IP”。"
        ),
    }
}

/// What a person is asked while an address is not on the allowlist.
const WHEN_ALLOWED: &str = bilingual!(
    "Then press Enter, and WeChat is asked again; it may take it some minutes. Ctrl-C ends, and nothing is written. ",
    "完成后按回车重试，可能需数分钟生效；按 Ctrl-C 结束，不写入任何文件。 "
);

/// Has the account fetched at once, as it will be from now on.
fn first_fetch(common: &CommonArgs, host: &SetupHost, name: &str, is_central: bool) -> Result<()> {
    if host.runner == FetchRunner::Systemd && !is_central {
        let step = SetupStep::run(&["systemctl", "start", FETCH]);
        let started = step.execute(host).with_context(|| {
            let words = ["journalctl", "--no-pager", "-q", "-o", "cat", "-n", "3", "-u", FETCH];
            let said = step::output_of(&words).unwrap_or_default();
            messages::FIRST_FETCH_OF_UNIT.with([&said.trim().replace('\n', "; ")])
        });
        return started.and_then(|_| output::print(&format!("  {}\n", step.summary())));
    }
    if host.runner == FetchRunner::Cron {
        return match as_service(host, "fetch", name)? {
            Exit::Done => Ok(()),
            exit => Err(exit.error(messages::FIRST_FETCH.text())),
        };
    }
    let args = FetchArgs {
        names: vec![name.to_owned()],
        account: AccountArgs::default(),
        force: false,
        rejected: None,
        timeout: TIMEOUT,
        mode: None,
    };
    match fetch::run(common, &args)? {
        Exit::Done => Ok(()),
        exit => Err(exit.error(messages::FIRST_FETCH.text())),
    }
}

/// Runs a verb about the account as the user of the service, whose secrets root does not trust, and as cron does it: without
/// this environment. Returns its exit status.
fn as_service(host: &SetupHost, verb: &str, name: &str) -> Result<Exit> {
    let (user, group) = host.service_user().with_context(|| messages::NO_USER.with([&USER]))?;
    let (_, copy) = host.program();
    let program = copy.unwrap_or_else(|| host.own_program().to_owned());
    let mut command = Command::new(&program);
    command.args([verb, "-c"]).arg(host.config()).arg(name).uid(user).gid(group);
    command.current_dir("/").stdin(Stdio::null()).env_clear();
    command.env(language::VARIABLE, Language::of_process().name());
    for variable in ["PATH", "TERM", "NO_COLOR"] {
        command.envs(env::var_os(variable).map(|value| (variable, value)));
    }
    let status = command.status().map_err(|err| {
        let what = cannot("run", "运行", format!("{verb} ({USER})"));
        anyhow!("{what}: {}", explained(&err, &program, Operation::Running))
    })?;
    Ok(Exit::of_status(status.code()))
}

/// Returns the error of a step with what to do then.
fn again(err: anyhow::Error) -> anyhow::Error {
    Exit::from_error(&err).error(format!("{err:#}{}{AGAIN}", in_both(". ", "。")))
}

fn check_args(name: &str) -> CheckArgs {
    CheckArgs {
        names: vec![name.to_owned()],
        account: AccountArgs::default(),
        format: CheckFormat::Text,
        timeout: TIMEOUT,
    }
}
