//! What findings say: what to do and what was found, in both languages. What asks for nothing is a note.

use crate::message::{messages, notes};

notes! {
    FROM_STDIN<0> = "from standard input", "来自标准输入";
    CREDENTIAL<1> = "systemd credential {0}", "systemd 凭据 {0}";
    FROM_VARIABLE<0> = "from WXTOKEN_SECRET", "来自环境变量 WXTOKEN_SECRET";
    NO_KEY<0> = "none: the other wxtoken knows this host by its address", "无：上游按地址识别本机";
    GIVEN_HERE<0> = "given on the command line", "由命令行给出";
    CA_STORE<2> = "beside the public ones {0} of {1}", "除公共根证书外，还有 {0} 个来自 {1}";
    DIRECTORY_READY<1> =
        "{0} can be published: writing, renaming and locking work", "可以发布到 {0}：写入、改名、加锁均正常";
    DIRECTORY_MISSING<1> =
        "the directory of {0} is not there yet; the first fetch makes it", "{0} 所在目录尚不存在，首次 fetch 时创建";
    REDIS_READY<1> =
        "{0} can be published: Redis answers, and can be written", "可以发布到 {0}：Redis 有应答且可写";
    HOOK<2> = "{0} runs {1}", "{0} 将运行 {1}";
    LOCK_FREE<0> = "free", "空闲";
    OTHER_PROCESS<0> = "another process", "另一个进程";
    ANSWERS<2> = "{0} answers, in {1} ms", "{0} 有应答，用时 {1} ms";
    CLOCK_EQUAL<0> = "goes with the other side's", "与对方一致";
    CLOCK_BEHIND<1> = "{0} behind the other side's", "比对方慢 {0}";
    CLOCK_AHEAD<1> = "{0} ahead of the other side's", "比对方快 {0}";
    SEEN_FROM<1> = "WeChat sees {0}", "微信看到的地址为 {0}";
    ACCEPTED<0> = "WeChat accepts AppID and AppSecret", "微信接受 AppID 与 AppSecret";
    ACCEPTED_ON_CLASSIC<0> =
        "WeChat accepts AppID and AppSecret (asked for a stable token, which leaves the classic ones alone)",
        "微信接受 AppID 与 AppSecret（以稳定版接口验证，不影响 classic 接口的 token）";
    ACCEPTED_BY_WECOM<0> =
        "WeCom accepts the corp's ID and the app's secret", "企业微信接受企业 ID 与应用 Secret";
    ACCEPTED_BY_SOURCE<0> =
        "the other wxtoken gives this host the account's token", "上游向本机提供该账号的 token";
    HONOURED<2> = "{0} is honoured, {1} left", "{0} 有效，剩余 {1}";
    GIVEN_AGAIN<2> =
        "{0} is given again, so it is honoured, {1} left", "微信再次给出 {0}，因此有效，剩余 {1}";
    /// A token that was invalidated before its time. The messages that begin with `KILLED` say why.
    DEAD<3> =
        "{0} is dead, {1} before its time, killed some time after {2}", "{0} 已提前失效（本应还有 {1}，在 {2} 之后被作废）";
    REPLACED<3> =
        "{0} is no longer WeChat's current token, and dies in minutes with {1} left, replaced some time after {2}",
        "{0} 已不是微信当前的 token，数分钟内失效（本应还有 {1}，在 {2} 之后被更换）";
    TICKET_LIVE<2> = "{0} has {1} left", "{0} 剩余 {1}";
    REFRESHED<1> = "last asked for {0} ago", "上次获取于 {0} 前";
    NEXT_REQUEST<1> = "; the next request follows at {0}", "；下次请求时间为 {0}";
}

messages! {
    NO_SECRET<0> {
        "Name its file in secret_file, unless another host or a unit with a credential (LoadCredential) asks WeChat.",
        "this host has no AppSecret for the account, so whether WeChat accepts it was not tried";
        "请用 secret_file 指定 AppSecret 文件；若由其他主机或带凭据（LoadCredential）的 systemd 单元刷新，则无须处理。",
        "本机没有该账号的 AppSecret，未能验证微信是否接受";
    }
    SECRET_UNUSABLE<1> {
        "Put it alone on one line into a file with mode 0600 of the user that runs fetch.", "{0}";
        "文件中应只有它自己一行，权限 0600，属主为运行 fetch 的用户。", "{0}";
    }
    SECRET_CLOSED<1> {
        "Run check as the user that runs fetch.", "{0}";
        "请以运行 fetch 的用户执行 check。", "{0}";
    }
    SECRET_OF_ROOT<3> {
        "Run {2}, which says what to do.",
        "root alone can read {0}, and the documents are those of {1}, as whom cron or a unit runs fetch";
        "请执行 {2}，并按其提示处理。", "{0} 只有 root 可读，而 token 文件属于 {1}，cron 或单元以该用户运行 fetch";
    }
    CA_STORE_UNUSABLE<1> {
        "Correct the variable or unset it: the public roots are built in.", "{0}";
        "请修正或删除该环境变量：公共根证书已内置。", "{0}";
    }
    CLIENT_UNUSABLE<1> {
        "Correct ca_file, proxy or base_url of this account.", "{0}";
        "请修正该账号的 ca_file、proxy 或 base_url。", "{0}";
    }
    NO_APPID<1> {
        "Give the AppID, by --appid or appid in the config.", "{0}";
        "请用 --appid 或配置中的 appid 指明 AppID。", "{0}";
    }
    DIRECTORY_ON_NETWORK<2> {
        "Let one host fetch and the others be mirrors of it, each with documents on a local disk.",
        "{0} can be published, on {1}: whether its locks hold between hosts cannot be tried from one, and serve waits while it hangs";
        "请只让一台主机刷新，其他主机做只读副本，token 文件放在各自的本地磁盘上。",
        "可以发布到 {0}，位于 {1}：其文件锁在主机之间是否有效，无法在一台主机上验证；它无响应时，serve 也会停住";
    }
    DIRECTORY_UNUSABLE<2> {
        "Mend that, or give another directory with --dir.", "{0} cannot be published: {1}";
        "请先解决该问题，或用 --dir 指定其他目录。", "无法发布到 {0}：{1}";
    }
    OPEN_TO_WRITERS<3> {
        "Run {0}.", "others can write to {1}, mode {2}, and so have a token of their own handed out";
        "请执行 {0}。", "其他用户可写 {1}（权限 {2}），可借此让 wxtoken 提供伪造的 token";
    }
    REDIS_FAULTY<2> {
        "Correct that in Redis.", "{0} can be published, but programs that read a key of also get no token: {1}";
        "请在 Redis 中修正。", "可以发布到 {0}，但读取 also 的键的程序得不到 token：{1}";
    }
    REDIS_SILENT<2> {
        "Correct that in Redis.",
        "{0} can be published, but other hosts are not told at once, and see a new token up to a second later: {1}";
        "请在 Redis 中修正。", "可以发布到 {0}，但无法即时通知其他主机，它们最多晚一秒得到新 token：{1}";
    }
    REDIS_UNUSABLE<2> {
        "See store and [redis] in the config.", "{0} cannot be published: {1}";
        "请检查配置中的 store 与 [redis]。", "无法发布到 {0}：{1}";
    }
    OTHER_SECRET<0> {
        "Compare the secrets of all hosts, unless this one was replaced just now.",
        "the secret is not the one that got the published token; the next fetch asks WeChat";
        "请核对各主机使用的 Secret；若刚刚更换过，则无须处理。",
        "当前 Secret 不是获取已发布 token 时所用的，下次 fetch 会请求微信";
    }
    ANSWERS_LOST<3> {
        "See what cuts connections off (proxy, firewall, network), or set api = \"stable\", where asking again costs none.",
        "answers of WeChat lost within a day: {0}, the last at {1}; each may have cost a token{2}";
        "请排查代理、防火墙与网络，或改用 api = \"stable\"（重复请求不消耗 token）。",
        "24 小时内有 {0} 次未收到微信的应答，最近一次为 {1}；每次都可能消耗一个 token{2}";
    }
    HOOK_UNUSABLE<3> {
        "Name the program by its path, seen from the config, or one in the PATH of the user that runs fetch; and let that \
         user execute it.",
        "{0} cannot run {1}: {2}";
        "请填写程序的路径（相对于配置文件），或运行 fetch 的用户 PATH 中的程序，并确认该用户有执行权限。",
        "{0} 无法运行 {1}：{2}";
    }
    LOCK_HELD<1> {
        "Check again in a minute: a fetch ends itself after its --timeout.",
        "held by {0}: it is asking WeChat right now, or hangs";
        "请一分钟后再检查：fetch 超过 --timeout 会自行结束。",
        "由 {0} 持有：它正在请求微信，或已卡住";
    }
    /// Of what is in a Redis that cannot be used.
    SAME_AS_STORE<0> {
        "See store, above.", "unknown, for the same reason";
        "见上面的 store 一项。", "未知，原因相同";
    }
    LOCK_UNKNOWN<1> {
        "See store, above.", "unknown: {0}";
        "见上面的 store 一项。", "未知：{0}";
    }
    LOCK_UNUSABLE<1> {
        "Run check as the user that runs fetch.", "{0}";
        "请以运行 fetch 的用户执行 check。", "{0}";
    }
    NO_CLOCK<0> {
        "Look at this host's clock by hand (timedatectl).", "the other side does not tell the time";
        "请自行核对本机时间（timedatectl）。", "对方未告知时间";
    }
    CLOCK_DIFFERS<1> {
        "Set it, and keep it so with NTP (timedatectl set-ntp true).", "{0}";
        "请校准本机时间并启用 NTP（timedatectl set-ntp true）。", "{0}";
    }
    CLOCK_WRONG<1> {
        "Set it, and keep it so with NTP (timedatectl set-ntp true).",
        "{0}: tokens seem to live that much longer, or shorter";
        "请校准本机时间并启用 NTP（timedatectl set-ntp true）。",
        "{0}：token 的有效期会因此算错";
    }
    ADDRESS_REFUSED<1> {
        "Allow the address of this host, or check on a host that uses the token.",
        "calls that use the token are refused from here: {0}";
        "请放行本机地址，或在使用该 token 的主机上检查。",
        "从本机使用 token 的请求被拒绝：{0}";
    }
    EXPIRED<3> {
        "Run {2} now, and see why it was not refreshed in time.", "{0} expired at {1}";
        "请立即运行 {2}，并排查为何没有按时刷新。", "{0} 已于 {1} 过期";
    }
    /// In this order: what classic gives is killed again.
    KILLED_ON_CLASSIC<3> {
        "First set api = \"stable\", which such programs do not disturb, or find that program and stop it. Replace it now: \
         {1}; serve --refresh does so when a client tells it. If WeChat honours the token after all, run {2} instead.",
        "{0}: another program asks for this account's token, too, and on classic each call kills the one before";
        "请先改 api = \"stable\"（不受其影响），或找出该程序并停用，再更换 token。请立即更换：{1}；serve --refresh 收到调用方报告后会自动更换。\
         若旧 token 仍有效，改用 {2}。",
        "{0}：另有程序也在获取该账号的 token，classic 接口每次调用都会使旧 token 失效";
    }
    /// The document does not say which API gave its token.
    KILLED_ON_STABLE<2> {
        "If api was classic until lately, replace the token once, and that is all; else find the program that sends \
         force_refresh, or the reset of the AppSecret. Replace it now: {1}; serve --refresh does so when a client tells it.",
        "{0}: the token was got by classic before api was changed, another program asks with force_refresh, or the AppSecret \
         was reset";
        "若刚由 classic 改为 stable，更换一次即可；否则请找出带 force_refresh 的程序，或确认 AppSecret 是否被重置。请立即更换：{1}；\
         serve --refresh 收到调用方报告后会自动更换。",
        "{0}：该 token 是改 api 之前由 classic 接口获取的，或另有程序带 force_refresh 刷新，或 AppSecret 已被重置";
    }
    KILLED_AT_SOURCE<2> {
        "Find the program that sends force_refresh, or the reset of the AppSecret. Replace it now: {1}; serve --refresh does \
         so when a client tells it.",
        "{0}: another program asks with force_refresh, or the AppSecret was reset";
        "请找出带 force_refresh 的程序，或确认 AppSecret 是否被重置。请立即更换：{1}；serve --refresh 收到调用方报告后会自动更换。",
        "{0}：另有程序带 force_refresh 刷新，或 AppSecret 已被重置";
    }
    KILLED_AT_WECOM<2> {
        "Look at the app in WeCom's console. Replace it now: {1}; serve --refresh does so when a client tells it.",
        "{0}: the app's secret was reset, or the app was disabled";
        "请在企业微信管理后台“应用管理”中查看该应用的 Secret 与状态。请立即更换：{1}；serve --refresh 收到调用方报告后会自动更换。",
        "{0}：应用的 Secret 已被重置，或应用已停用";
    }
    SOURCE_IS_AHEAD<2> {
        "See schedule, below, unless a fetch follows within the minute.",
        "{0} has {1} left; the other wxtoken gives another one by now";
        "请看下面的 schedule 一项；若一分钟内会运行 fetch，则无须处理。",
        "{0} 剩余 {1}；上游现在给出的是另一个";
    }
    NOT_TRIED<2> {
        "See the findings above: they say why nothing was asked.",
        "{0} has {1} left; whether it is honoured was not tried";
        "原因见上面各项。",
        "{0} 剩余 {1}；未验证微信是否接受";
    }
    UNKNOWN_FROM_HERE<2> {
        "See address, above; or check on a host that uses the token.",
        "{0} has {1} left; whether it is honoured is unknown: this host's address was refused before the token was looked at";
        "见上面的 address 一项；也可在使用该 token 的主机上检查。",
        "{0} 剩余 {1}；微信是否接受未知：本机地址先被拒绝，微信未检查 token";
    }
    UNKNOWN<3> {
        "Do what the answer asks for, then check again.",
        "{0} has {1} left; whether it is honoured is unknown: {2}";
        "请按应答的提示处理，然后重新检查。",
        "{0} 剩余 {1}；微信是否接受未知：{2}";
    }
    UNREADABLE<1> {
        "See store or directory, above; run this as the user that runs fetch, or as a member of the group that may read it.",
        "{0}";
        "见上面的 store 或 directory 一项；请以运行 fetch 的用户，或有读权限的组成员执行。",
        "{0}";
    }
    DAMAGED<2> {
        "Run {1} as the user that keeps it fresh.", "{0}";
        "请以负责刷新的用户运行 {1}。", "{0}";
    }
    MISSING<2> {
        "Run {1} as the user that keeps it fresh.", "nothing is published: {0} does not exist";
        "请以负责刷新的用户运行 {1}。", "尚未发布：{0} 不存在";
    }
    FOREIGN<2> {
        "Give this account its own file or dir.", "{0} belongs to {1}, another account";
        "请为此账号另行指定 file 或 dir。", "{0} 属于另一账号 {1}";
    }
    NOTHING_YET<0> {
        "Solve the problem above first; the next run of fetch publishes then.", "nothing is published yet";
        "请先解决上面的问题，下次运行会自动获取。", "尚未发布";
    }
    CLOCK_SET_BACK<1> {
        "See that NTP keeps the clocks of all hosts that fetch; the next fetch asks anew.",
        "asked for {0} in the future: a clock was set back, or differs";
        "请确认所有刷新主机的时间由 NTP 校准；下次 fetch 会重新获取。",
        "获取时间比现在晚 {0}：时钟被调回，或各主机时间不一致";
    }
    OVERDUE<2> {
        "See whether cron, the timer (systemctl list-timers) or serve --refresh runs, and what it said last.",
        "last asked for {0} ago, and due since {1}: not asked for since";
        "请确认 cron、systemd 定时器（systemctl list-timers）或 serve --refresh 正在运行，并查看其最近的日志。",
        "上次获取于 {0} 前，{1} 起就应刷新，至今未刷新";
    }
}
