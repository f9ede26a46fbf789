//! Why a setup goes no further, and what to do.

use crate::message::messages;

messages! {
    // The command line.
    WORK_AND_API<0> {
        "Leave out one of them.", "--work and --api cannot be used together";
        "请去掉其中一个。", "--work 与 --api 不能同时使用";
    }
    NO_SERVE<0> {
        "Write an address of this host and a port, like 10.0.0.5:7200, or unix:PATH.", "--serve: this is not one";
        "请填写本机地址和端口，如 10.0.0.5:7200，或 unix:PATH。", "--serve 格式不对";
    }
    NEEDS_ALLOW<0> {
        "Say who may ask, like --allow 10.0.0.0/8.", "--serve: other hosts reach this address";
        "请指定允许访问的网段，如 --allow 10.0.0.0/8。", "--serve：其他主机可以访问该地址";
    }
    NEEDS_SERVE<0> {
        "Give --serve, too, the address at which they ask.", "--allow goes with --serve";
        "请同时用 --serve 指定供其访问的地址。", "--allow 须与 --serve 一起使用";
    }
    ELSEWHERE<1> {
        "Leave it out.", "--{0}: setup writes the config of the system, or without root your own, and says where";
        "请去掉该选项。", "--{0}：setup 写入系统配置（非 root 时为您自己的配置），并会说明位置";
    }
    SECRET_VARIABLE<1> {
        "Unset {0}.", "setup reads the AppSecret from the terminal or from --secret-file";
        "请取消设置 {0}。", "setup 从终端或 --secret-file 读取 AppSecret";
    }

    // The account.
    NEEDS_NAME<0> {
        "Say what to call this one, like --name shop.", "--name: there are other accounts";
        "请为该账号取名，如 --name shop。", "--name：已有其他账号";
    }
    NAME_OF_MIRROR<1> {
        "Give this one another --name.", "account {0} takes its token from another wxtoken";
        "请用 --name 另取名称。", "账号 {0} 的 token 来自另一个 wxtoken";
    }
    NAME_OF_OTHER<2> {
        "Give this one another --name.", "account {0} has another AppID, {1}";
        "请用 --name 另取名称。", "账号 {0} 的 AppID 是 {1}";
    }
    WHICH_NAME<1> {
        "Give --name.", "which of {0} is it?";
        "请用 --name 指定。", "是 {0} 中的哪一个？";
    }
    OTHER_APP<1> {
        "Give this app a name of its own, like --name crm. To replace the Secret of {0}, give --name {0}.",
        "{0} has another Secret, and the AppID of all apps of a corp is the same";
        "请为该应用另取名称，如 --name crm；如要更换 {0} 的 Secret，请加上 --name {0}。",
        "{0} 的 Secret 与所填的不同，而同一企业各应用的企业 ID 相同";
    }
    OTHER_OF_UNITS<1> {
        "Set that one up first, with --secret-file and its AppSecret.",
        "/etc/wxtoken/wxtoken.env names the account {0}, which the units would go on with";
        "请先用 --secret-file 及其 AppSecret 设置该账号。",
        "/etc/wxtoken/wxtoken.env 指定了账号 {0}，systemd 单元会继续使用它";
    }

    // The AppSecret.
    NO_TERMINAL<0> {
        "Give --secret-file, with - for standard input.", "there is no terminal to ask for the AppSecret on";
        "请使用 --secret-file，- 表示标准输入。", "没有可供输入 AppSecret 的终端";
    }
    TERMINAL_FAILS<0> {
        "Give --secret-file.", "cannot ask on the terminal";
        "请使用 --secret-file。", "无法在终端上提问";
    }
    NO_SECRET<0> {
        "Run it again with the AppSecret.", "nothing was written, as there is no AppSecret";
        "请准备好 AppSecret 后重新运行。", "没有有效的 AppSecret，未写入任何文件";
    }
    NO_STDIN<0> {
        "Pipe the AppSecret in, or name a file.", "cannot read stdin";
        "请通过管道传入 AppSecret，或指定文件。", "无法读取标准输入";
    }

    WRONG_APPID<1> {
        "Copy it again.", "an AppID is wx and 16 small letters and digits, like wx0123456789abcdef; this has {0} characters";
        "请重新复制。", "AppID 由 wx 和 16 位小写字母、数字组成，如 wx0123456789abcdef；所填内容为 {0} 个字符";
    }
    WRONG_LENGTH<2> {
        "Copy it again.", "this has {0} characters, and an AppSecret has {1}";
        "请重新复制。", "AppSecret 应为 {1} 个字符，所输入内容为 {0} 个";
    }

    // The host.
    NO_HOME<0> {
        "Set HOME.", "cannot tell where your config is: HOME is not set";
        "请设置 HOME。", "未设置 HOME，无法确定配置的位置";
    }
    NO_PROGRAM<0> {
        "Mount /proc.", "cannot tell where this program is";
        "请挂载 /proc。", "无法确定本程序的位置";
    }
    OTHER_SETUP<1> {
        "Wait for it to end.", "another setup holds {0}";
        "请等待其结束。", "另一个 setup 持有 {0}";
    }
    CHANGEABLE<1> {
        "Make it root's, mode 0755, and run this again.", "{0} can be changed by other users";
        "请将其属主改为 root、权限改为 0755，然后重新运行。", "其他用户可以修改 {0}";
    }
    NO_PLACE<1> {
        "Make it root's, mode 0755, and run this again.",
        "other users can change {0}, or cannot pass through it to the program that the services run";
        "请将其属主改为 root、权限改为 0755，然后重新运行。", "其他用户可以修改 {0}，或无法经由它运行服务程序";
    }
    LINK<2> {
        "Put {1} itself in its place.", "{0} is a symbolic link, and setup writes through none";
        "请用 {1} 本身替换该链接。", "{0} 是符号链接，setup 不会经由链接写入";
    }
    NOT_A_DIRECTORY<1> {
        "Move it away, and run this again.", "{0} is no directory";
        "请先移走该文件，然后重新运行。", "{0} 不是目录";
    }
    NOT_A_FILE<1> {
        "Move it away, and run this again.", "{0} is no file that can be replaced";
        "请先将其移走，然后重新运行。", "{0} 不是可以替换的普通文件";
    }
    UNIT_OF_BEFORE<1> {
        "Move the units wxtoken-* from there, or install those of this version, and run this again.",
        "{0} is of an earlier version, and looks for AppSecrets elsewhere";
        "请移走该目录中的 wxtoken-* 单元，或安装本版本的单元，然后重新运行。", "{0} 属于较早版本，AppSecret 的位置不同";
    }
    NOT_OURS<1> {
        "Move it away, and run this again.", "{0} was not written by wxtoken setup";
        "请先移走该文件，然后重新运行。", "{0} 不是由 wxtoken setup 写入的";
    }
    BAD_NAME<2> {
        "Rename it to ASCII without a colon.",
        "{0} has a file called {1}; systemd starts no unit that gets a file with such a name";
        "请改为不含冒号的 ASCII 文件名。", "{0} 中有文件 {1}，systemd 无法将此类文件名传给单元，单元将无法启动";
    }
    VARIABLE_OF_UNITS<2> {
        "Remove {0} from {1}.", "{0} is in {1}: setup writes the config of the system, and says where";
        "请从 {1} 中删除 {0}。", "{1} 中有 {0}：setup 写入系统配置，位置由其决定";
    }
    SOCKET_ENABLED<0> {
        "Leave --serve out and change ListenStream= by systemctl edit wxtoken-serve.socket, or run systemctl disable --now \
         wxtoken-serve.socket first.",
        "--serve: wxtoken-serve.socket is enabled, and its addresses are in force";
        "请去掉 --serve 并用 systemctl edit wxtoken-serve.socket 修改 ListenStream=，或先执行 systemctl disable --now \
         wxtoken-serve.socket。",
        "--serve：wxtoken-serve.socket 已启用，以其中的地址为准";
    }
    CRONTAB_UNREADABLE<1> {
        "Run crontab -l by hand.", "cannot read your crontab: {0}";
        "请手动运行 crontab -l。", "无法读取 crontab：{0}";
    }

    VARIABLE_OF_CRON<2> {
        "Set {0} in the lines of {1} that need it, not for all.",
        "{0} is in {1}, and cron would not fetch what setup writes into the config";
        "请将 {1} 中的 {0} 改写到需要它的命令行内。", "{1} 中有 {0}，cron 不会按 setup 写入的配置运行 fetch";
    }
    ALSO_FETCH<2> {
        "Take fetch out of those for {0}.", "these lines of {1} run it, too";
        "请从其中用于 {0} 的行里去掉 fetch。", "{1} 中以下各行也会运行它";
    }

    // The steps.
    NO_USER<1> {
        "Make it (useradd --system {0}), or see why getent passwd {0} does not find it.", "there is no user {0}";
        "请创建该用户（useradd --system {0}），或检查 getent 为何找不到它。", "没有用户 {0}";
    }
    COMMAND_FAILED<2> {
        "See what it says, and run it by hand.", "{0}: {1}";
        "请查看其输出，并手动运行。", "{0}：{1}";
    }
    FIRST_FETCH<0> {
        "See the lines above.", "the first fetch failed";
        "请查看上面的输出。", "首次 fetch 失败";
    }
    FIRST_FETCH_OF_UNIT<1> {
        "Run journalctl -u wxtoken-fetch.", "the first fetch failed: {0}";
        "请运行 journalctl -u wxtoken-fetch。", "首次 fetch 失败：{0}";
    }
}
