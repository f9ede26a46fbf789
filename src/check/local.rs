//! Findings about this host: the secret, the place of the documents, the lock and the hook.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;

use super::Finding;
use crate::error::Exit;
use crate::language::{bilingual, in_both};
use crate::model::document::rfc3339;
use crate::model::location::Location;
use crate::model::secret::Secret;
use crate::os::ca_store::CaStore;
use crate::os::hook::Hook;
use crate::store::{DirectoryState, LeaseState, LostAnswers, PublishTrial};
use crate::upstream::UpstreamError;
use crate::upstream::credentials::SecretSource;

/// The AppSecret, or a mirror's key. `source` is where it comes from, and `read` the result of reading it.
pub(crate) fn secret(
    is_mirror: bool,
    source: Option<&SecretSource<'_>>,
    read: &Result<Option<Secret>>,
) -> Finding {
    let about = if is_mirror { "key" } else { "secret" };
    match (source, read) {
        (Some(source), Ok(Some(_))) => Finding::good(about, describe(source)),
        (_, Ok(_)) => Finding::good(
            about,
            bilingual!(
                "none: the other wxtoken knows this host by its address",
                "无：上游按地址识别本机"
            ),
        ),
        (Some(_), Err(err)) => Finding::from_error(about, err).remedy(
            "Put it alone on one line into a file with mode 0600 of the user that runs fetch.",
            "文件中应只有它自己一行，权限 0600，属主为运行 fetch 的用户。",
        ),
        (None, Err(_)) => Finding::notice(
            about,
            bilingual!(
                "this host has no AppSecret for the account, so whether WeChat accepts it was not tried",
                "本机没有该账号的 AppSecret，未能验证微信是否接受"
            ),
        )
        .remedy(
            "Name its file in secret_file, unless another host or a unit with a credential (LoadCredential) asks WeChat.",
            "请用 secret_file 指定 AppSecret 文件；若由其他主机或带凭据（LoadCredential）的 systemd 单元刷新，则无须处理。",
        ),
    }
}

/// A description of a source, with the mode of its file.
fn describe(source: &SecretSource<'_>) -> String {
    let with_mode = |path: &Path| {
        let mode = path.metadata().map(|it| it.permissions().mode() & 0o7777);
        let mode = mode.map(|mode| format!(" ({mode:04o})")).unwrap_or_default();
        format!("{}{mode}", path.display())
    };
    match source {
        SecretSource::Stdin => bilingual!("from standard input", "来自标准输入").to_owned(),
        SecretSource::File(path) => with_mode(path),
        SecretSource::FileOrPipe(path) => with_mode(path),
        SecretSource::Credential(path) => {
            let what = bilingual!("systemd credential", "systemd 凭据");
            format!("{what} {}", with_mode(path))
        }
        SecretSource::Variable => {
            bilingual!("from WXTOKEN_SECRET", "来自环境变量 WXTOKEN_SECRET").to_owned()
        }
    }
}

/// The system's CA store, as it was read; `None` if the environment names none.
pub(crate) fn ca_store(read: Result<&CaStore, &str>) -> Option<Finding> {
    let about = "roots";
    match read {
        Ok(store) if store.sources.is_empty() => None,
        Ok(CaStore { certificates, sources }) => Some(Finding::good(
            about,
            in_both(
                format!(
                    "beside the public ones {} of {}",
                    certificates.len(),
                    sources.join(" and ")
                ),
                format!(
                    "除公共根证书外，还有 {} 个来自 {}",
                    certificates.len(),
                    sources.join("、")
                ),
            ),
        )),
        Err(what) => Some(Finding::problem(about, Exit::Usage, what).remedy(
            "Correct the variable or unset it: the public roots are built in.",
            "请修正或删除该环境变量：公共根证书已内置。",
        )),
    }
}

/// Whether documents can be published at this location. `trial` is the result of trying.
pub(crate) fn location(location: &Location, trial: &PublishTrial) -> Finding {
    match trial {
        PublishTrial::Directory(tried) => directory(location, tried),
        PublishTrial::Redis(tried) => redis(location, tried),
    }
}

fn directory(location: &Location, tried: &Result<DirectoryState>) -> Finding {
    let about = "directory";
    match tried {
        Ok(DirectoryState::Ready) => {
            Finding::good(
                about,
                in_both(
                    format!("{location} can be published: writing, renaming and locking work"),
                    format!("可以发布到 {location}：写入、改名、加锁均正常"),
                ),
            )
        }
        Ok(DirectoryState::Network(kind)) => Finding::notice(
            about,
            in_both(
                format!(
                    "{location} can be published, on {kind}: whether its locks hold between hosts cannot be tried from one"
                ),
                format!("可以发布到 {location}，位于 {kind}：其文件锁在主机之间是否有效，无法在一台主机上验证"),
            ),
        )
        .remedy(
            "Let one host fetch and the others read, or be mirrors of it.",
            "请只让一台主机刷新，其他主机只读取，或做只读副本。",
        ),
        Ok(DirectoryState::Missing) => {
            Finding::good(
                about,
                in_both(
                    format!("the directory of {location} is not there yet; the first fetch makes it"),
                    format!("{location} 所在目录尚不存在，首次 fetch 时创建"),
                ),
            )
        }
        Err(err) => unpublishable(about, location, err)
            .remedy("Or give another directory with --dir.", "也可用 --dir 指定其他目录。"),
    }
}

/// A location at which nothing can be published.
fn unpublishable(about: &'static str, location: &Location, err: &anyhow::Error) -> Finding {
    let what = in_both(format!("{location} cannot be published"), format!("无法发布到 {location}"));
    Finding::problem(about, Exit::Failure, format!("{what}: {err:#}"))
}

fn redis(location: &Location, tried: &Result<Vec<anyhow::Error>>) -> Finding {
    let about = "store";
    match tried {
        Ok(faults) if faults.is_empty() => Finding::good(
            about,
            in_both(
                format!("{location} can be published: Redis answers, and can be written"),
                format!("可以发布到 {location}：Redis 有应答且可写"),
            ),
        ),
        Ok(faults) => {
            let faults: Vec<_> = faults.iter().map(|fault| format!("{fault:#}")).collect();
            let faults = faults.join("; ");
            let what = in_both(
                format!("{location} can be published, with a fault"),
                format!("可以发布到 {location}，但有问题"),
            );
            let what = format!("{what}: {faults}");
            Finding::problem(about, Exit::Failure, what).remedy(
                "Correct that in Redis: tokens are refreshed all the same, but programs that read this key get none.",
                "请在 Redis 中修正：token 照常刷新，但读取该键的程序得不到它。",
            )
        }
        Err(err) => unpublishable(about, location, err)
            .remedy("See store and [redis] in the config.", "请检查配置中的 store 与 [redis]。"),
    }
}

/// A secret that is not the one that got the published token.
pub(crate) fn other_secret() -> Finding {
    Finding::notice(
        "record",
        bilingual!(
            "the secret is not the one that got the published token; the next fetch asks WeChat",
            "当前 Secret 不是获取已发布 token 时所用的，下次 fetch 会请求微信"
        ),
    )
    .remedy(
        "Compare the secrets of all hosts, unless this one was replaced just now.",
        "请核对各主机使用的 Secret；若刚刚更换过，则无须处理。",
    )
}

/// Answers that were lost within a day, on the API where each costs a token.
pub(crate) fn lost_answers(lost: &LostAnswers) -> Finding {
    let LostAnswers { count, last_at, next_at } = lost;
    let answers = match count {
        1 => "1 answer of WeChat was".to_owned(),
        count => format!("{count} answers of WeChat were"),
    };
    let last_at = rfc3339(*last_at);
    let next = next_at.map(rfc3339).map(|at| {
        in_both(format!("; the next request follows at {at}"), format!("；下次请求在 {at}"))
    });
    let next = next.unwrap_or_default();
    Finding::notice(
        "record",
        in_both(
            format!(
                "{answers} lost within a day, the last at {last_at}; each may have cost a token{next}"
            ),
            format!("24 小时内有 {count} 次未收到微信的应答，最近一次在 {last_at}；每次都可能消耗一个 token{next}"),
        ),
    )
    .remedy(
        "See what cuts connections off (proxy, firewall, network), or set api = \"stable\", where asking again costs none.",
        "请排查代理、防火墙与网络，或改用 api = \"stable\"（重复请求不消耗 token）。",
    )
}

/// A refusal, not of the credentials, that still keeps `fetch` from asking.
pub(crate) fn still_refused(error: &UpstreamError) -> Finding {
    Finding::notice("record", error.to_string())
}

/// Whether the program of a hook can be run.
pub(crate) fn hook(hook: &Hook) -> Finding {
    let (about, key) = ("hook", hook.kind().key());
    match hook.find() {
        Ok(path) => Finding::good(
            about,
            in_both(
                format!("{key} runs {}", path.display()),
                format!("{key} 将运行 {}", path.display()),
            ),
        ),
        Err(err) => Finding::problem(
            about,
            Exit::Hook,
            format!(
                "{} {}: {err}",
                in_both(format!("{key} cannot run"), format!("{key} 无法运行")),
                hook.program().display()
            ),
        )
        .remedy(
            "Name the program by its path, seen from the config, or one in the PATH of the user that runs fetch; and let that \
             user execute it.",
            "请写程序的路径（相对于配置文件），或运行 fetch 的用户 PATH 中的程序，并确认该用户有执行权限。",
        ),
    }
}

/// Whether the lock is free. `trial` is the result of trying to publish.
pub(crate) fn lock(trial: &PublishTrial, state: &Result<LeaseState>) -> Finding {
    let about = "lock";
    match state {
        Ok(LeaseState::Free) => Finding::good(about, bilingual!("free", "空闲")),
        Ok(LeaseState::Held(holder)) => {
            let holder = holder.as_deref().unwrap_or(bilingual!("another process", "另一个进程"));
            Finding::notice(
                about,
                in_both(
                    format!("held by {holder}: it is asking WeChat right now, or hangs"),
                    format!("由 {holder} 持有：它正在请求微信，或已卡住"),
                ),
            )
            .remedy(
                "Check again in a minute: a fetch ends itself after its --timeout.",
                "请一分钟后再检查：fetch 超过 --timeout 会自行结束。",
            )
        }
        // The finding about the store is the problem.
        Err(err) if matches!(trial, PublishTrial::Redis(_)) => {
            let what = bilingual!("unknown", "未知");
            Finding::notice(about, format!("{what}: {err:#}"))
                .remedy("See store, above.", "见上面的 store 一项。")
        }
        Err(err) => Finding::problem(about, Exit::Failure, format!("{err:#}"))
            .remedy("Run check as the user that runs fetch.", "请以运行 fetch 的用户执行 check。"),
    }
}
