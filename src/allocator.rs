//! The allocator, and returning freed memory to the system.
//!
//! * Small allocations dominate, and mimalloc wastes the least on them. Huge pages are switched off: with
//!   them the kernel backs whole megabytes for kilobytes in use (an idle daemon held 57 MB instead of 9).
//! * mimalloc returns memory to the system only while something allocates. Code that has just freed much
//!   memory calls [`release_free_pages`] on the thread that freed it.

pub use mimalloc::MiMalloc as Allocator;

/// Prevents the kernel from backing this process's memory with huge pages by itself. Call it at the start of
/// `main`. A system without this setting has no huge pages.
pub fn without_huge_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Returns this thread's free pages to the system. These are the pages that have been free for a second or,
/// if `at_rest` is true, all of them; an active thread would have to fault them in again.
pub fn release_free_pages(at_rest: bool) {
    // SAFETY: `mi_collect` takes no pointer and may be called on any thread at any time, whichever allocator
    // the process uses; it touches only mimalloc's own pages.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_collect(at_rest);
    }
}
