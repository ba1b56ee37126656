//! `bluetooth_driver_bad`: a request tests the stopping flag, then counts itself in; the driver is stopped in between.

use crate::shared::World;

pub(super) fn spawn(world: &World) {
    let (pending_io, stopping) = (world.cell(1i32), world.cell(false));
    let (stopping_event, stopped) = (world.cell(false), world.cell(false));
    let main = world.clone();
    let stop = {
        let (pending_io, stopping) = (pending_io.clone(), stopping.clone());
        let (stopping_event, stopped) = (stopping_event.clone(), stopped.clone());
        async move {
            stopping.set(true).await;
            if pending_io.fetch_add(-1).await == 1 {
                stopping_event.set(true).await;
            }
            if stopping_event.get().await {
                stopped.set(true).await;
            }
        }
    };
    world.spawn("main", async move {
        let stop = main.create("stop", stop).await;
        if !stopping.get().await {
            pending_io.fetch_add(1).await;
            main.check(!stopped.get().await, "a request runs on a stopped driver");
        }
        if pending_io.fetch_add(-1).await == 1 {
            stopping_event.set(true).await;
        }
        stop.join().await;
    });
}
