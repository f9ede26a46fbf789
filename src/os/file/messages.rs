//! What is said about a file that cannot be replaced.

use crate::message::messages;

messages! {
    TAKEN_OVER<1> {
        "See whether the lock file was removed, or this file system has no locks.",
        "another process is replacing {0} in spite of the lock";
        "请检查锁文件是否被删除，或该文件系统不支持锁。", "另一个进程未受锁限制，正在替换 {0}";
    }
    NO_FILE_NAME<1> {
        "Give the path of a file.", "{0} is not a file's name";
        "请给出文件路径。", "{0} 不是文件名";
    }
    SYMBOLIC_LINK<1> {
        "Name the file that it points to.", "{0} is a symbolic link";
        "请直接写它指向的文件。", "{0} 是符号链接";
    }
    NOT_REGULAR<1> {
        "Move it away, or name another path.", "{0} is not a regular file";
        "请移走它，或换一个路径。", "{0} 不是普通文件";
    }
    MOUNTED_ALONE<1> {
        "Mount its directory, not the file.", "{0} is mounted on its own and cannot be replaced";
        "请挂载其所在目录，而不是单个文件。", "{0} 是单独挂载的，无法替换";
    }
    STICKY<1> {
        "Run as its owner, or use a directory of its own.",
        "{0} belongs to another user, in a sticky directory: it cannot be replaced";
        "请以其属主身份运行，或使用单独的目录。", "{0} 属于其他用户，且目录带 sticky 位，无法替换";
    }
    /// Its commands are between the marks of `language::COMMAND_MARKS`.
    ATTRIBUTE<3> {
        "See \u{E005}lsattr -d {0}\u{E006}, and run \u{E005}chattr -{1} {0}\u{E006}.", "{0} is {2}, so that nothing can be replaced";
        "请先执行 \u{E005}chattr -{1} {0}\u{E006}。", "{0} 带有 chattr +{1} 属性（{2}），无法替换文件";
    }
}
