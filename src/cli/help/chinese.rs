//! What help says in Chinese: of each verb, and of each argument by its id. The English is in the doc comments of the
//! arguments. A first paragraph is the short help, all of them are the long one.

use clap::{Arg, Command};

/// What each verb does. The first entry is wxtoken itself.
const VERBS: &[(&str, &str)] = &[
    (
        "wxtoken",
        "自动续期微信 access_token，保存为文件，供各处取用。\n\n\
         只由一处向微信获取，其他程序只读：fetch 由 cron 或定时器运行，get 用于脚本，serve 供其他主机使用。",
    ),
    (
        "setup",
        "在本机配置一个账号：填写 AppID 和 AppSecret 即可\n\n\
         提示输入 AppSecret，写入配置，之后自动刷新 token。再次运行可添加账号。",
    ),
    ("fetch", "该刷新时向微信获取 token，并发布成文件"),
    ("get", "输出已发布的 token 及剩余有效期"),
    (
        "serve",
        "通过 HTTP 向允许的调用方提供 token\n\n也支持 HTTPS。加上 --refresh 时也负责向微信获取。",
    ),
    ("sign", "用已发布的 ticket 为页面生成 JS-SDK 签名"),
    ("status", "显示已发布的 token 及剩余有效期"),
    ("check", "检查从账号到微信的每个环节，指出问题和处理办法"),
    ("key", "为一个调用方生成访问密钥，以及写入访问密钥文件的一行"),
    (
        "ca",
        "生成只能签发微信域名的 CA，以及一张证书\n\n\
         供通过 hosts 文件把微信域名指向 serve 的调用方使用；会说明怎样信任它。",
    ),
    ("mock", "在本机回环地址模拟微信接口，可按需产生故障"),
    ("demo", "用模拟的微信演示全过程，自动结束"),
    ("completions", "输出 shell 的补全脚本"),
];

/// What stands after the help of wxtoken itself, short and long.
const AFTER: [&str; 2] = [
    "`wxtoken help VERB` 显示一个命令的全部选项及其环境变量。\n\
     初次使用？`wxtoken demo` 演示全过程，不需要账号。",
    "每个选项都有对应的环境变量：--refresh-before 对应 WXTOKEN_REFRESH_BEFORE。选项优先。\n\
     初次使用？`wxtoken demo` 演示全过程，不需要账号。",
];

/// What each argument is for, by its id, or by `VERB.ID` where that differs from other verbs'.
const ARGUMENTS: &[(&str, &str)] = &[
    // Every verb.
    ("help", "显示帮助（--help 更详细）"),
    ("version", "显示版本"),
    (
        "config",
        "账号的配置文件\n\n默认：未在命令行指定账号时，使用 ~/.config/wxtoken/wxtoken.toml（root 除外）或 /etc/wxtoken/wxtoken.toml（如果存在）。",
    ),
    (
        "dir",
        "token 文件所在目录\n\n\
         默认：$STATE_DIRECTORY，否则 root 用 /var/lib/wxtoken，其他用户用 ~/.local/state/wxtoken。",
    ),
    ("verbose", "在 stderr 输出更多；-vv：每一步\n\n-vvv 还包括网络库自己的日志。"),
    ("quiet", "不在 stderr 输出，以退出码为准"),
    (
        "log_format",
        "stderr 的格式：text 或 json\n\n\
         json 时每行是一个对象：time、level、verb、event、account 及其他已知字段、message。",
    ),
    // The account.
    ("appid", "AppID；work 为企业 ID"),
    (
        "secret_file",
        "AppSecret 文件，`-` 表示标准输入\n\n\
         默认：$CREDENTIALS_DIRECTORY/default.secret，否则 AppSecret 取自 $WXTOKEN_SECRET。",
    ),
    ("api", "微信接口：stable（默认）、classic 或 work"),
    (
        "base_url",
        "微信接口地址，https\n\n\
         回环地址也可用 http。默认：api.weixin.qq.com，work 为 qyapi.weixin.qq.com。",
    ),
    ("ca_file", "额外信任该文件中的证书\n\n公共根证书仍然有效。"),
    ("refresh_before", "剩余多久时刷新 [默认：5m]"),
    ("file", "token 文件 [默认：DIR/default.json]"),
    // setup
    ("setup.appid", "AppID；加 --work 时为企业 ID"),
    (
        "setup.name",
        "账号的名字\n\n\
         用于 `get NAME` 和 GET /token/NAME。默认：唯一的账号为 default；第二个账号起必须指定。",
    ),
    ("work", "企业微信应用：等同于 --api work"),
    ("setup.secret_file", "AppSecret 文件，`-` 表示标准输入\n\n默认：在终端提示输入，不显示。"),
    (
        "serve",
        "在该地址向其他主机提供 token\n\nIP:PORT 或 unix:PATH。非回环地址须同时指定 --allow。",
    ),
    ("setup.allow", "允许访问的地址或网段，可多次指定"),
    (
        "central",
        "由一个进程负责获取和提供 token\n\n\
         即 `serve --refresh`，代替定时器；调用方报告 token 失效时也会更换。",
    ),
    ("dry_run", "只显示将写入的文件和执行的命令"),
    // Accounts of the config.
    ("names", "配置中的账号 [默认：全部]"),
    ("name", "配置中的账号 [默认：唯一的账号]"),
    // fetch
    ("force", "立即获取新 token，即使未到刷新时间\n\nticket 仍只在到期时获取。"),
    (
        "rejected",
        "更换被微信拒绝的 TOKEN；`-`：读标准输入\n\n\
         TOKEN（不是 ticket）仍是已发布的 token 时，才获取新的。",
    ),
    ("timeout", "本次运行的时限\n\n包括等待另一个 fetch 和重试。"),
    ("mode", "token 文件的权限，八进制 [默认：0600]"),
    // get
    ("raw", "只输出 token，不用 JSON"),
    ("ticket", "输出该类型的 ticket，而不是 token"),
    ("min_life", "剩余有效期不足时，退出码为 3"),
    // status, check
    ("format", "text、json 或 prometheus"),
    ("check.format", "text 或 json"),
    ("check.timeout", "本次运行的时限"),
    // key
    ("key.name", "调用方的名字，见于服务器日志\n\n可用字母、数字、`.`、`_` 和 `-`。"),
    ("key.accounts", "该访问密钥可用于哪些账号 [默认：全部]"),
    (
        "apis",
        "可调用哪些接口 [默认：管理类以外的全部]\n\n\
         经 serve 的网关调用：路径如 /cgi-bin/message，包含其下的全部，或 `all`。可重复。指定了路径的访问密钥领不到 token。",
    ),
    // sign
    ("url", "页面的 URL，与 location.href 一致\n\n# 及其后的部分不参与签名。"),
    (
        "sign.ticket",
        "签名用的 ticket：jsapi（默认）或 agent_config\n\n后者用于企业微信的 wx.agentConfig。",
    ),
    (
        "agentid",
        "应用的 AgentId，用于 wx.agentConfig\n\n原样输出；此时 ticket 的类型为 agent_config。",
    ),
    // serve
    (
        "listen",
        "监听地址 [默认：127.0.0.1:7200]\n\n\
         可重复。IP:PORT（IPv6 地址加方括号）或 unix:PATH；端口 0 表示任选空闲端口。",
    ),
    ("allow", "允许访问的地址或网段，可多次指定\n\n默认：没有 --allow-file 时只允许本机回环地址。"),
    (
        "allow_file",
        "白名单文件：更多允许访问的地址\n\n以换行、空格或逗号分隔；修改后自动重新读取。不自动包含回环地址。",
    ),
    (
        "trusted_proxy",
        "信任其 X-Forwarded-For 的代理\n\n\
         地址、网段，或 `unix`（经 Unix socket 而来的代理）；可重复。也信任 Forwarded。它所代表的客户端仍须在 --allow 中。",
    ),
    (
        "server_name",
        "调用方访问本服务器所用的域名\n\n\
         localhost 之外的名称；可重复。指定后，其他 Host 的请求会被拒绝。默认：回环地址上没有，其他地址上任意。",
    ),
    (
        "keys",
        "访问密钥文件，调用方须持有其中之一\n\n\
         同时仍须来自允许的地址：每行为 NAME SHA256 [ACCOUNT,… [API,…]]，由 `wxtoken key` 生成；修改后自动重新读取。",
    ),
    ("tls_cert", "启用 HTTPS 所用的证书\n\n签发者的证书依次写在同一文件中。"),
    ("tls_key", "证书的私钥\n\n存放在其他用户不可读的文件中。"),
    ("tls_client_ca", "调用方须有这些 CA 签发的证书"),
    ("refresh", "同时向微信获取：到期自动换，也可按需更换\n\n本机是唯一向微信获取的地方。"),
    (
        "gateway",
        "接口调用也经由它转发给微信\n\n转发时使用账号的 token：指向这里的 SDK 不会遇到失效的 token。",
    ),
    (
        "sdk_life",
        "返回给 SDK 的最长有效期，如 290s\n\n\
         用于微信自己的路径；61s 至 2h。SDK 到时会再来领取，配合 --refresh，失效的 token 会被更换。",
    ),
    (
        "opaque_tokens",
        "只提供 wxtoken 自己的 token，仅可用于网关\n\n每个访问密钥各有自己的，微信的 token 不离开本机。须与 --keys 和 --gateway 同用。",
    ),
    ("serve.mode", "token 文件的权限，八进制 [默认：0600]\n\n与 --refresh 同用。"),
    ("max_connections", "最多同时连接数 [默认：1024]\n\n超过时，空闲最久的连接让位。"),
    // ca
    ("directory", "存放 CA 文件的目录，不存在时创建"),
    ("renew", "用 DIR 中的 CA 签发下一张服务器证书"),
    ("days", "服务器证书的有效天数，1 至 825"),
    ("ca.name", "新 CA 只能签发的微信域名：api.weixin.qq.com 或 qyapi.weixin.qq.com [默认：两者]"),
    // mock, demo
    ("mock.listen", "监听地址，限回环地址\n\n端口 0 表示任选空闲端口。"),
    (
        "mock.accounts",
        "存在的账号及其 Secret\n\n\
         企业微信的每个应用写企业 ID 和应用的 Secret。默认：wx0123456789abcdef:0123456789abcdef0123456789abcdef。",
    ),
    ("life", "token 的有效期"),
    ("overlap", "被替换的 token 还能用多久\n\n剩余有效期少于它时，stable_token 给出新的 token。"),
    (
        "fault",
        "以故障应答：errcode:N、http:STATUS、slow:SECONDS、hang、reset、lost 等\n\n\
         对接下来的 TIMES 次请求有效，或直到 POST /mock/fault 另行指定；前面加 token/、probe/、ticket/ 或 api/ \
         则只限此类请求。GET /mock/faults 和手册列出全部。",
    ),
    (
        "full",
        "演示企业常见的多账号场景\n\n一份配置里有两个公众号和一个企业微信应用，含 ticket、钩子和只读副本。",
    ),
    ("keep", "保持运行，直到 Ctrl-C"),
    // completions
    ("shell", "bash、zsh 或 fish"),
];

/// What each value means that an argument may have.
const VALUES: &[(&str, &str)] = &[
    ("text", "供人阅读"),
    ("json", "供程序使用"),
    ("prometheus", "供 node_exporter 的 textfile 采集"),
    ("stable", "POST /cgi-bin/stable_token：重复获取得到同一个 token，不影响别处"),
    ("classic", "GET /cgi-bin/token：每次调用生成新 token，旧的五分钟后失效"),
    ("work", "企业微信 GET /cgi-bin/gettoken：有效期内得到同一个 token"),
];

/// Returns what a value means.
pub(super) fn of_value(name: &str) -> Option<&'static str> {
    find(VALUES, name)
}

/// Returns the command with its help in Chinese, and so each of its verbs.
pub(super) fn translated(command: Command) -> Command {
    let translate_verb = |verb: Command| {
        let name = verb.get_name().to_owned();
        verb.mut_args(|arg| translated_argument(&name, arg))
    };
    let command = command.mut_args(|arg| translated_argument("", arg));
    with_about(command)
        .after_help(AFTER[0])
        .after_long_help(AFTER[1])
        .mut_subcommands(translate_verb)
        .mut_subcommands(with_about)
}

fn with_about(command: Command) -> Command {
    match find(VERBS, command.get_name()) {
        Some(text) => command.about(first_paragraph(text)).long_about(text),
        None => command,
    }
}

fn translated_argument(verb: &str, arg: Arg) -> Arg {
    match of_argument(verb, arg.get_id().as_str()) {
        Some(text) => arg.help(first_paragraph(text)).long_help(text),
        None => arg,
    }
}

/// Returns what the argument with this id is for.
fn of_argument(verb: &str, id: &str) -> Option<&'static str> {
    find(ARGUMENTS, &format!("{verb}.{id}")).or_else(|| find(ARGUMENTS, id))
}

fn find(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(it, _)| *it == name).map(|(_, text)| *text)
}

fn first_paragraph(text: &'static str) -> &'static str {
    text.split("\n\n").next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::Cli;
    use super::*;

    #[test]
    fn every_verb_and_every_argument_has_its_chinese_and_no_other_has() {
        let mut command = Cli::definition();
        command.build();
        let mut used = BTreeSet::new();
        for verb in command.get_subcommands().chain([&command]) {
            let name = verb.get_name();
            assert!(name == "help" || find(VERBS, name).is_some(), "{name}");
            for arg in verb.get_arguments().filter(|arg| !arg.is_hide_set() && name != "help") {
                let id = arg.get_id().as_str();
                let text = of_argument(name, id);
                let text = text.unwrap_or_else(|| panic!("{name} --{id} has no Chinese"));
                let own = format!("{name}.{id}");
                used.insert(if find(ARGUMENTS, &own).is_some() { own } else { id.to_owned() });
                let paragraphs = |text: &str| text.split("\n\n").count();
                let english = arg.get_long_help().or(arg.get_help()).unwrap().to_string();
                assert_eq!(paragraphs(text), paragraphs(&english), "{name} --{id}: {text}");
            }
        }
        for verb in command.get_subcommands() {
            let values = verb.get_arguments().flat_map(Arg::get_possible_values);
            for value in values.filter(|value| value.get_help().is_some()) {
                assert!(of_value(value.get_name()).is_some(), "{}", value.get_name());
            }
        }
        let known = ARGUMENTS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(used, known, "no entry is for an argument that is gone");
    }
}
