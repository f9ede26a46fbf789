//! What is said before a setup, with `--dry-run`, and after it: what would be done, and the commands that matter from then on.

use std::net::SocketAddr;

use super::host::{FetchRunner, SetupHost};
use super::step::SetupStep;
use crate::language::{Language, bilingual, in_both};
use crate::model::address::listen::Listen;

/// How a command is run as the user whose secrets and documents they are where cron runs `fetch`.
const AS_SERVICE: &str = "sudo -u wxtoken ";

/// Returns what would be done.
pub(super) fn preview(steps: &[SetupStep], host: &SetupHost, is_central: bool) -> String {
    let head = bilingual!(
        "Nothing is done. Without --dry-run, after the AppSecret was asked for and WeChat accepts it:",
        "仅预览，未做任何改动。去掉 --dry-run 后，将提示输入 AppSecret，经微信确认后依次执行："
    );
    let steps: String = steps.iter().map(SetupStep::preview).collect();
    let last = match host.runner {
        FetchRunner::Systemd if !is_central => "  systemctl start wxtoken-fetch.service\n",
        _ => "  wxtoken fetch\n",
    };
    format!("{}{steps}{last}  wxtoken check\n{}", line(head), without_runner(host))
}

/// Returns what the name of a second app of a corp is for, where `name` is the one that is there.
pub(super) fn other_app(name: &str) -> String {
    line(&in_both(
        format!(
            "This is for the app {name}. Give another app of the corp a name of its own, like --name crm."
        ),
        format!("以上针对已有的应用 {name}；同一企业的其他应用请另取名称（如 --name crm）。"),
    ))
}

/// Returns what a person has to do where nothing runs `fetch` regularly.
fn without_runner(host: &SetupHost) -> String {
    match host.runner {
        FetchRunner::Nothing => line(bilingual!(
            "There is neither systemd nor cron here: have wxtoken fetch run every minute, or wxtoken serve --refresh all the \
             time.",
            "本机没有 systemd 或 cron：请自行每分钟运行一次 wxtoken fetch，或常驻运行 wxtoken serve --refresh。"
        )),
        _ => String::new(),
    }
}

/// What a person has to do about a proxy for which the config is no place.
pub(super) const NEEDS_PROXY: &str = bilingual!(
    "The proxy of this environment has a password, and the services do not have it: put HTTPS_PROXY= into \
     /etc/wxtoken/wxtoken.env, mode 0600, or into the crontab.",
    "当前环境的代理含密码，服务无法得到：请将 HTTPS_PROXY= 写入 /etc/wxtoken/wxtoken.env（权限 0600）或 crontab。"
);

/// What is said after a setup.
pub(super) struct SetupReport<'a> {
    pub(super) host: &'a SetupHost,
    /// The account's name, if there are several.
    pub(super) name: Option<&'a String>,
    /// Where other hosts are served.
    pub(super) listen: &'a [String],
    pub(super) is_central: bool,
    /// Whether they ask by TLS.
    pub(super) has_tls: bool,
    /// Whether they need a key.
    pub(super) has_keys: bool,
}

impl SetupReport<'_> {
    /// Returns the text.
    pub(super) fn text(&self) -> String {
        let SetupReport { host, name, listen, .. } = *self;
        let sudo = if host.is_system() { "sudo " } else { "" };
        let checks = if host.runner == FetchRunner::Cron { AS_SERVICE } else { sudo };
        let name = name.map(|name| format!(" {name}")).unwrap_or_default();
        let commands = [
            (
                format!("{sudo}wxtoken status"),
                in_both("what is published, and how long it lives", "查看 token 及剩余有效期"),
            ),
            (
                format!("{sudo}wxtoken get -r{name}"),
                in_both("the token, for scripts", "输出 token，供脚本使用"),
            ),
            (
                format!("{checks}wxtoken check{name}"),
                in_both(
                    "when something is wrong: what, and what to do",
                    "出现问题时的诊断与处理办法",
                ),
            ),
        ];
        let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
        let head = match host.runner {
            FetchRunner::Nothing => bilingual!("The token is published.", "token 已发布。"),
            _ => bilingual!("The token is fetched from now on.", "今后将自动刷新 token。"),
        };
        let mut text = format!("\n{}", line(head));
        for (command, purpose) in &commands {
            text += &format!("  {command:width$}  {purpose}\n");
        }
        if host.is_system() {
            text += &line(bilingual!(
                "Without sudo, for users in the group wxtoken: sudo usermod -aG wxtoken USER.",
                "将用户加入 wxtoken 组后无须 sudo：sudo usermod -aG wxtoken 用户名。"
            ));
        }
        text += &self.serving();
        for address in listen.iter().filter_map(|it| Listen::parse(it).ok()) {
            if let Listen::Tcp(address) = address {
                text += &self.asking(address, name.trim());
            }
        }
        text + &without_runner(host)
    }

    /// Returns how the token of an account is asked for at an address that is listened at.
    fn asking(&self, address: SocketAddr, name: &str) -> String {
        let (ip, port) = (address.ip(), address.port());
        let (who, at) = match ip {
            _ if ip.is_loopback() => (
                bilingual!("Programs of this host ask with:", "本机的程序这样获取："),
                address.to_string(),
            ),
            _ if ip.is_unspecified() => (
                bilingual!(
                    "Other hosts ask with, an address of this host in place of HOST:",
                    "其他主机这样获取（HOST 换成本机的地址）："
                ),
                format!("HOST:{port}"),
            ),
            _ => (bilingual!("Other hosts ask with:", "其他主机这样获取："), address.to_string()),
        };
        let scheme = if self.has_tls { "https" } else { "http" };
        let key = if self.has_keys { "-H \"Authorization: Bearer $KEY\" " } else { "" };
        let path = if name.is_empty() { String::new() } else { format!("/{name}") };
        format!("{}  curl -sS --fail {key}{scheme}://{at}/token{path}\n", line(who))
    }

    /// Returns what a person has to do to have other hosts served where setup starts no service.
    fn serving(&self) -> String {
        if self.host.runner == FetchRunner::Systemd || (self.listen.is_empty() && !self.is_central)
        {
            return String::new();
        }
        let user = if self.host.runner == FetchRunner::Cron { AS_SERVICE } else { "" };
        let refresh = if self.is_central { " --refresh" } else { "" };
        let command = format!("{user}wxtoken serve{refresh}");
        line(&in_both(
            format!("Other hosts are served by {command}: have it started with this host."),
            format!("向其他主机提供 token 需运行 {command}：请设置为开机启动。"),
        ))
    }
}

/// Returns a line; where the reader's language is unknown, one in each.
pub(super) fn line(text: &str) -> String {
    match Language::of_process() {
        Language::Both => {
            let texts = [Language::English, Language::Chinese].map(|it| it.resolve(text));
            format!("{}\n{}\n", texts[0], texts[1])
        }
        Language::English | Language::Chinese => format!("{text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_command_for_other_programs_is_one_that_works_where_it_is_typed() {
        let host = SetupHost::detect(Some(Path::new("/nonexistent"))).unwrap();
        let asking = |address: &str, has_tls, has_keys| {
            let report = SetupReport {
                host: &host,
                name: None,
                listen: &[],
                is_central: false,
                has_tls,
                has_keys,
            };
            report.asking(address.parse().unwrap(), "shop")
        };
        for (address, who, at) in [
            ("127.0.0.1:7200", "Programs of this host", "127.0.0.1:7200"),
            ("[::1]:7200", "Programs of this host", "[::1]:7200"),
            ("0.0.0.0:7200", "in place of HOST", "HOST:7200"),
            ("[::]:7200", "in place of HOST", "HOST:7200"),
            ("10.0.0.5:7200", "Other hosts ask with:", "10.0.0.5:7200"),
        ] {
            let text = asking(address, false, false);
            let command = format!("\n  curl -sS --fail http://{at}/token/shop\n");
            assert!(text.contains(who) && text.ends_with(&command), "{text}");
        }
        let text = asking("10.0.0.5:7200", true, true);
        let command = "--fail -H \"Authorization: Bearer $KEY\" https://10.0.0.5:7200/token/shop\n";
        assert!(text.ends_with(command), "{text}");
    }

    /// The secrets and the documents are that user's.
    #[test]
    fn where_cron_runs_fetch_other_hosts_are_served_by_the_same_user() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/cron.d")).unwrap();
        let host = SetupHost::detect(Some(root.path())).unwrap();
        assert!(host.runner == FetchRunner::Cron);
        let listen = ["127.0.0.1:7200".to_owned()];
        for (is_central, command) in [(false, "serve:"), (true, "serve --refresh:")] {
            let report = SetupReport {
                host: &host,
                name: None,
                listen: &listen,
                is_central,
                has_tls: false,
                has_keys: false,
            };
            let text = report.text();
            let expected = format!("served by sudo -u wxtoken wxtoken {command} have it started");
            assert!(text.contains(&expected), "{text}");
        }
    }

    #[test]
    fn where_nothing_runs_fetch_setup_does_not_say_that_something_does() {
        let host = SetupHost::detect(Some(Path::new("/nonexistent"))).unwrap();
        assert!(host.runner == FetchRunner::Nothing);
        let (name, listen) = (None, &[][..]);
        let report = SetupReport {
            host: &host,
            name,
            listen,
            is_central: false,
            has_tls: false,
            has_keys: false,
        };
        let text = report.text();
        assert!(
            text.contains("neither systemd nor cron") && !text.contains("from now on"),
            "{text}"
        );
    }
}
