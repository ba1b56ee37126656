//! `account_bad`: the check compares with the wrong sum, once deposit and withdrawal are both done. main does not join.

use crate::shared::World;

const X: i32 = 1;
const Y: i32 = 2;
const Z: i32 = 4;

pub(super) fn spawn(world: &World) {
    let (m, balance) = (world.lock(), world.cell(X));
    let (deposit_done, withdraw_done) = (world.cell(false), world.cell(false));
    let main = world.clone();
    let check = {
        let (m, balance, world) = (m.clone(), balance.clone(), world.clone());
        let (deposit_done, withdraw_done) = (deposit_done.clone(), withdraw_done.clone());
        async move {
            m.lock().await;
            if deposit_done.get().await && withdraw_done.get().await {
                world.check(balance.get().await == (X - Y) - Z, "the balance is not what it should be");
            }
            m.unlock().await;
        }
    };
    let deposit = {
        let (m, balance) = (m.clone(), balance.clone());
        async move {
            m.lock().await;
            let before = balance.get().await;
            balance.set(before + Y).await;
            deposit_done.set(true).await;
            m.unlock().await;
        }
    };
    let withdraw = async move {
        m.lock().await;
        let before = balance.get().await;
        balance.set(before - Z).await;
        withdraw_done.set(true).await;
        m.unlock().await;
    };
    world.spawn("main", async move {
        main.create("check", check).await;
        main.create("deposit", deposit).await;
        main.create("withdraw", withdraw).await;
    });
}
