//! Error numbers as the kernel returns them: 0 or a negative value (Linux `include/uapi/asm-generic/errno*.h`).

/// Return value of a kernel call: 0, a positive result, or a negative error.
pub type Errno = i32;

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: Errno = -$value;)*

        /// The symbol of a negative error number.
        pub fn name(errno: Errno) -> &'static str {
            match errno {
                0 => "0",
                $($name => concat!("-", stringify!($name)),)*
                _ => "-E?",
            }
        }
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1;
    /// No such entry.
    ENOENT = 2;
    /// I/O error.
    EIO = 5;
    /// No such device or address.
    ENXIO = 6;
    /// Bad file descriptor.
    EBADF = 9;
    /// Try again.
    EAGAIN = 11;
    /// Out of memory.
    ENOMEM = 12;
    /// Bad user address.
    EFAULT = 14;
    /// Busy.
    EBUSY = 16;
    /// Exists.
    EEXIST = 17;
    /// No such device.
    ENODEV = 19;
    /// Invalid argument.
    EINVAL = 22;
    /// No free descriptor.
    EMFILE = 24;
    /// Not a request for this file.
    ENOTTY = 25;
    /// No space left.
    ENOSPC = 28;
    /// Out of range.
    ERANGE = 34;
    /// No data.
    ENODATA = 61;
    /// Value too large.
    EOVERFLOW = 75;
    /// Address in use.
    EADDRINUSE = 98;
    /// Address not available.
    EADDRNOTAVAIL = 99;
    /// Argument list too long.
    E2BIG = 7;
    /// Operation not supported.
    EOPNOTSUPP = 95;
    /// Timed out.
    ETIMEDOUT = 110;
    /// Given up by the caller itself.
    ECANCELED = 125;
}
