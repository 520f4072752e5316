//! Detects what is forbidden on the audio thread in a piece of code.

use graft_tests::allocations;

/// The result of watching a piece of code.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Deeds {
    /// Allocations, reallocations and releases of memory.
    pub allocations: usize,
    /// Number of the first system call.
    pub system_call: Option<i64>,
}

/// Runs `work` and reports whether it allocated or entered the kernel.
pub fn watch(work: impl FnOnce()) -> Deeds {
    let mut system_call = None;
    let allocations = allocations(|| system_call = system_calls::watch(work));
    Deeds {
        allocations,
        system_call,
    }
}

/// Detects system calls with the kernel's "syscall user dispatch": while a selector byte is set, a system call of this
/// thread raises SIGSYS instead.
mod system_calls {
    use std::cell::Cell;
    use std::ptr;

    const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
    const PR_SYS_DISPATCH_ON: u64 = 1;
    const ALLOW: u8 = 0;
    const BLOCK: u8 = 1;

    thread_local! {
        static SELECTOR: Cell<u8> = const { Cell::new(ALLOW) };
        static FIRST: Cell<Option<i64>> = const { Cell::new(None) };
    }

    pub fn watch(work: impl FnOnce()) -> Option<i64> {
        super::handle_signal(libc::SIGSYS, on_system_call);
        // SAFETY: the selector lives as long as the thread.
        let armed = unsafe {
            libc::prctl(
                PR_SET_SYSCALL_USER_DISPATCH,
                PR_SYS_DISPATCH_ON,
                0_u64,
                0_u64,
                SELECTOR.with(Cell::as_ptr),
            )
        };
        assert_eq!(armed, 0, "the kernel has no syscall user dispatch");
        FIRST.set(None);
        SELECTOR.set(BLOCK);
        work();
        SELECTOR.set(ALLOW);
        FIRST.get()
    }

    /// Records the call, allows all that follow (including the return of this handler) and makes the blocked call.
    extern "C" fn on_system_call(
        _signal: i32,
        _info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        SELECTOR.set(ALLOW);
        // SAFETY: the kernel passes the interrupted thread's registers.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let argument = |register: i32| registers[register as usize];
        let number = argument(libc::REG_RAX);
        FIRST.set(Some(number));
        // SAFETY: the same call with the same arguments as the watched code makes.
        let result = unsafe {
            libc::syscall(
                number,
                argument(libc::REG_RDI),
                argument(libc::REG_RSI),
                argument(libc::REG_RDX),
                argument(libc::REG_R10),
                argument(libc::REG_R8),
                argument(libc::REG_R9),
            )
        };
        // SAFETY: the address of this thread's errno.
        let errno = unsafe { ptr::read(libc::__errno_location()) };
        registers[libc::REG_RAX as usize] = match result {
            -1 => -i64::from(errno),
            result => result,
        };
    }
}

/// Counts atomic read-modify-writes by single-stepping the code. Taking and releasing a lock needs one each, even if it
/// is uncontended.
pub mod atomics {
    use std::arch::asm;
    use std::cell::Cell;

    const TRAP_FLAG: i64 = 1 << 8;
    const TRAP_TRACE: i32 = 2;

    thread_local! {
        static COUNT: Cell<usize> = const { Cell::new(0) };
    }

    /// Runs `work` and counts the atomic read-modify-writes in it.
    pub fn count(work: impl FnOnce()) -> usize {
        super::handle_signal(libc::SIGTRAP, on_step);
        COUNT.set(0);
        // SAFETY: the handler starts single steps here,
        unsafe { asm!("int3") };
        work();
        // SAFETY: and ends them here.
        unsafe { asm!("int3") };
        COUNT.get()
    }

    /// Starts or ends single steps at a breakpoint, and looks at each instruction in between.
    extern "C" fn on_step(_signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel passes the reason and the interrupted thread's registers.
        let (reason, registers) = unsafe {
            let context = &mut *context.cast::<libc::ucontext_t>();
            ((*info).si_code, &mut context.uc_mcontext.gregs)
        };
        if reason != TRAP_TRACE {
            registers[libc::REG_EFL as usize] ^= TRAP_FLAG;
            return;
        }
        let next = registers[libc::REG_RIP as usize] as *const u8;
        // SAFETY: the next instruction is readable, and no bytes beyond it are read.
        if unsafe { is_atomic(next) } {
            COUNT.set(COUNT.get() + 1);
        }
    }

    /// Whether an instruction has a lock prefix, or is an exchange with memory, which needs none.
    ///
    /// # Safety
    ///
    /// `code` points to an instruction.
    unsafe fn is_atomic(mut code: *const u8) -> bool {
        const LOCK: u8 = 0xF0;
        const XCHG: [u8; 2] = [0x86, 0x87];
        loop {
            // SAFETY: prefixes are followed by more of the instruction.
            let (byte, following) = unsafe { (*code, code.add(1)) };
            match byte {
                LOCK => return true,
                // Segment, size and repeat prefixes, and REX.
                0x26 | 0x2E | 0x36 | 0x3E | 0x64..=0x67 | 0xF2 | 0xF3 | 0x40..=0x4F => {}
                // The top bits of the operand byte are set when both operands are registers.
                // SAFETY: an exchange has an operand byte.
                _ => return XCHG.contains(&byte) && unsafe { *following } < 0xC0,
            }
            code = following;
        }
    }
}

fn handle_signal(
    signal: i32,
    handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void),
) {
    // SAFETY: an all-zero action is valid, and the handlers only touch registers and thread locals that need no
    // initialisation.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    assert_eq!(result, 0, "no handler for signal {signal}");
}
