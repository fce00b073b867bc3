//! The allocator, and giving back what a crowd left behind.
//!
//! * Small allocations dominate, and mimalloc wastes the least on them. It is told off huge pages: with them the kernel
//!   backs whole megabytes for kilobytes in use (an idle daemon held 57 MB instead of 9).
//! * mimalloc returns memory to the system only while something allocates. Who has just freed much asks for it
//!   ([`give_back`]), on the thread that freed it.

pub use mimalloc::MiMalloc as Allocator;

/// Keeps the kernel from backing this process's memory with huge pages on its own account. For the start of `main`; a
/// system that does not know the question has none to give.
pub fn without_huge_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Returns this thread's free pages to the system: those that have been free for a second, or, where the thread has come
/// to rest, all of them, which it would have to fault in again if it went on.
pub fn give_back(at_rest: bool) {
    // SAFETY: `mi_collect` takes no pointer and may be called on any thread at any time, whichever allocator is the
    // process's; it touches mimalloc's own pages only.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_collect(at_rest);
    }
}
