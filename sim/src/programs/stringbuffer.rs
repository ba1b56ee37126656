//! `stringbuffer-jdk1.4`: `append` asks the other buffer for its length, and later for so many characters; each call locks, the pair
//! does not.

use crate::shared::World;

const LENGTH: u32 = 10;

pub(super) fn spawn(world: &World) {
    let (lock, count) = (world.lock(), world.cell(LENGTH));
    let chars = world.cells(LENGTH as usize, b'a');
    let main = world.clone();
    let eraser = {
        let (lock, count) = (lock.clone(), count.clone());
        async move {
            lock.lock().await;
            if count.get().await > 0 {
                count.set(0).await;
            }
            lock.unlock().await;
        }
    };
    world.spawn("main", async move {
        let eraser = main.create("eraser", eraser).await;
        lock.lock().await;
        let wanted = count.get().await;
        lock.unlock().await;
        lock.lock().await;
        main.check(wanted <= count.get().await, "more characters than there are");
        for char in chars.iter().take(wanted as usize) {
            char.get().await;
        }
        lock.unlock().await;
        eraser.join().await;
    });
}
