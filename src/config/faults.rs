//! What is wrong with a key of a config file, by itself. No text repeats a value, which may be a secret.

use crate::message::texts;

texts! {
    // The form of a value.
    LIKE_SECRET =
        "Put it into a file with mode 0600, and name that in secret_file: this has the form of an AppSecret, which has no \
         place here",
        "请存入权限 0600 的文件，并用 secret_file 指定：内容形似 AppSecret，不应写在这里";
    SECRET_KEY =
        "Put the secret into a file with mode 0600, and name that in secret_file: a secret has no place here",
        "请把密钥存入权限 0600 的文件，并用 secret_file 指定：密钥不应写在这里";
    EMPTY_LIST =
        "Put something in it, or leave it out: it is empty",
        "请填写内容，或去掉该项：为空";
    EMPTY_PATH =
        "Write a path: it is empty",
        "请填写路径：为空";
    CONTROL_IN_PATH =
        "Write a path without control characters: it has one",
        "请填写不含控制字符的路径：其中含有";
    LARGE_NUMBER =
        "Write a smaller number: it is too large",
        "请填写较小的数字：数字过大";
    EMPTY =
        "Write something, or leave it out: it is empty",
        "请填写内容，或去掉该项：为空";

    // Accounts.
    NO_APPID =
        "Write appid = … in it: it has no appid",
        "请写上 appid = …：没有 appid";
    ACCOUNT_LIKE_SECRET =
        "Give the account a short name: this has the form of an AppSecret",
        "请使用简短的账号名：形似 AppSecret";
    INVALID_APPID =
        "Write the AppID, like wx0123456789abcdef: this is not an AppID, which has letters, digits, - and _",
        "请填写 AppID，如 wx0123456789abcdef：格式不对，只能含字母、数字、- 和 _";
    APPID_LIKE_SECRET =
        "Write the AppID, like wx0123456789abcdef: this has the form of an AppSecret, and is not an AppID",
        "请填写 AppID，如 wx0123456789abcdef：形似 AppSecret，不是 AppID";
    NOT_OF_MIRROR =
        "Leave it out: it is for an account that asks WeChat itself, and `from` names another wxtoken, which does that",
        "请去掉该项：它用于直接访问微信的账号，而 from 指定了另一个 wxtoken";
    KEY_WITHOUT_FROM =
        "Leave it out, or give `from`: it goes with `from`, the other wxtoken that knows the key",
        "请去掉该项，或写上 from：key_file 须与 from 一起使用";
    TICKET_TWICE =
        "Name each type once: one is there twice",
        "每种类型请只写一次：有重复";
    EMPTY_PROGRAM =
        "Write a program as the first word: it is empty",
        "第一项请填写程序：为空";
    SHELL_LINE =
        "Write a list, like [\"systemctl\", \"reload\", \"app\"]: it is no line for a shell",
        "请写成列表，如 [\"systemctl\", \"reload\", \"app\"]：不经 shell 运行";

    // Documents.
    NO_FILE_NAME =
        "Write the path of a file: this is not a file's name",
        "请填写文件的路径：不是文件名";
    OWN_LOCK =
        "End it in .json: it would be its own lock",
        "请以 .json 结尾：否则与其锁文件同名";
    OWN_RECORD =
        "End it in .json: it would be a file that belongs to it",
        "请以 .json 结尾：否则与 wxtoken 为它保存的其他文件同名";

    // Redis.
    NO_STORE =
        "Write store = \"redis://host\", too: [redis] goes with store, which says where that Redis is",
        "请同时写上 store = \"redis://host\"：[redis] 须与 store 一起使用";
    CA_WITHOUT_TLS =
        "Begin it with rediss://, or leave out ca_file of [redis]: that is for TLS",
        "请以 rediss:// 开头，或去掉 [redis] 的 ca_file：它用于 TLS";
    NO_PASSWORD =
        "Name a file with the password in [redis] password_file: there is a user, and no password",
        "请用 [redis] password_file 指定存放密码的文件：有用户名而没有密码";
    PASSWORD_KEY =
        "Put it into a file with mode 0600, and name that in password_file: a password has no place here",
        "请把密码存入权限 0600 的文件，并用 password_file 指定：密码不应写在这里";
    ALSO_NO_KEY =
        "Write key = … in it: it has no key",
        "请写上 key = …：没有 key";
    ALSO_NO_FORMAT =
        "Write format = \"text\" or \"json-string\" in it: it has no format",
        "请写上 format = \"text\" 或 \"json-string\"：没有 format";
    INVALID_KEY =
        "Write a key of printable ASCII without blanks, 256 at most: this is not one",
        "请填写由可见 ASCII 字符组成的键，不含空格，最多 256 个字符：格式不对";
    KEY_OF_ALL =
        "Put {appid} or {account} into it: two accounts would have one key",
        "请在其中加入 {appid} 或 {account}：否则两个账号会使用同一个键";
    KEY_BRACES =
        "Write {appid} or {account} alone in braces: there is something else",
        "花括号中只能写 {appid} 或 {account}：有其他内容";
    UNKNOWN_FORMAT =
        "Write text or json-string: there is no such format",
        "请填写 text 或 json-string：没有这种格式";
    INVALID_PREFIX =
        "Write letters, digits, and : _ - . /, 64 at most: this is no prefix of keys",
        "请填写字母、数字及 : _ - . /，最多 64 个字符：前缀格式不对";
    LONG_TIMEOUT =
        "Write 10s at most: a refresh cannot wait longer",
        "请设为 10s 以内：刷新不能等待更久";
}
