//! What is said before a setup, with `--dry-run`, and after it: what would be done, and the commands that matter from then on.

use super::host::{FetchRunner, SetupHost};
use super::step::SetupStep;
use crate::language::{Language, bilingual, in_both};
use crate::model::address::listen::Listen;

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
}

impl SetupReport<'_> {
    /// Returns the text.
    pub(super) fn text(&self) -> String {
        let SetupReport { host, name, listen, .. } = *self;
        let sudo = if host.is_system() { "sudo " } else { "" };
        // Root does not trust the secrets of that user.
        let checks = if host.runner == FetchRunner::Cron { "sudo -u wxtoken " } else { sudo };
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
        let head = bilingual!("The token is fetched from now on.", "今后将自动刷新 token。");
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
        for address in listen.iter().filter_map(|it| Listen::parse(it)) {
            if let Listen::Tcp(address) = address {
                let path = name.trim();
                let path = if path.is_empty() { String::new() } else { format!("/{path}") };
                let asks = in_both("Other hosts ask with:", "其他主机这样获取：");
                text += &line(&asks);
                text += &format!("  curl -sS --fail http://{address}/token{path}\n");
            }
        }
        text + &without_runner(host)
    }

    /// Returns what a person has to do to have other hosts served where setup starts no service.
    fn serving(&self) -> String {
        if self.host.runner == FetchRunner::Systemd || (self.listen.is_empty() && !self.is_central)
        {
            return String::new();
        }
        let command = match self.is_central {
            true => "wxtoken serve --refresh",
            false => "wxtoken serve",
        };
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
