// Calls of @neon/sdk against the server in NEON_API_HOST; each prints one JSON line: {"step", "data"} or {"step", "error"}.
import { createNeonClient, raw } from "@neon/sdk";

const projectId = process.env.NEON_PROJECT_ID;
const waits = [];
const neon = createNeonClient({
    apiKey: process.env.NEON_API_KEY,
    baseUrl: process.env.NEON_API_HOST,
    wait: { pollIntervalMs: 20, timeoutMs: 120000 },
    fetch: (request, init) => {
        waits.push(Date.now());
        return fetch(request, init);
    },
});
const ready = { waitForReadiness: true };

const plain = (key, v) => (v instanceof Error ? { kind: v.kind, status: v.status, message: v.message, requestId: v.requestId } : v);
const show = (step, value) => console.log(JSON.stringify({ step, ...value }, plain));
const step = async (name, promise) => {
    const { data, error } = await promise;
    show(name, error ? { error } : { data: data ?? null });
    return data;
};
const main = async () => (await neon.branches.getDefault({ projectId })).data;

const steps = {
    async snapshots() {
        const branch = await main();
        await step("list-empty", neon.snapshots.list({ projectId }));
        const s = await step("create", neon.snapshots.create({ projectId, branchId: branch.id, name: "by sdk", slug: "by-sdk",
            expiresAt: "2099-01-01T00:00:00.000Z" }, ready));
        await step("list", neon.snapshots.list({ projectId }));
        await step("update", neon.snapshots.update({ projectId, snapshotId: s.id, name: "renamed", expiresAt: null }));
        // Without a target it finalizes, with one it doesn't: the reverse of the REST default.
        await step("restore-finalized", neon.snapshots.restore({ projectId, snapshotId: s.id }, ready));
        const target = await main();
        const preview = await step("restore-preview", neon.snapshots.restore({ projectId, snapshotId: s.id,
            targetBranchId: target.id, name: "plain preview" }, ready));
        await step("delete-preview", neon.branches.delete({ projectId, branchId: preview.id }, ready));
        await step("callback-commit", neon.snapshots.restore({ projectId, snapshotId: s.id, targetBranchId: target.id,
            preview: async (b) => (await neon.branches.get({ projectId, branchId: b.id })).data.restore_status === "restored" }));
        await step("default-after-commit", neon.branches.getDefault({ projectId }));
        await step("callback-abort", neon.snapshots.restore({ projectId, snapshotId: s.id,
            targetBranchId: (await main()).id, name: "aborted", preview: async () => false }));
        await step("branches-after-abort", neon.branches.list({ projectId }).all());
        await step("schedule-set", neon.snapshots.setSchedule({ projectId, branchId: (await main()).id,
            schedule: [{ frequency: "weekly", day: 2, hour: 4 }] }));
        await step("schedule-get", neon.snapshots.getSchedule({ projectId, branchId: (await main()).id }));
        await step("delete", neon.snapshots.delete({ projectId, snapshotId: s.id }, ready));
        await step("list-after-delete", neon.snapshots.list({ projectId }));
    },
    async branches() {
        const b = await step("create", neon.branches.create({ projectId, name: "sdk branch" }, ready));
        const id = b.id ?? b.branch?.id;
        await step("get", neon.branches.get({ projectId, branchId: id }));
        await step("update", neon.branches.update({ projectId, branchId: id, name: "sdk renamed" }));
        await step("list", neon.branches.list({ projectId }).all());
        await step("delete", neon.branches.delete({ projectId, branchId: id }, ready));
        await step("not-found", neon.branches.get({ projectId, branchId: id }));
    },
    async connect() {
        await step("connect", neon.branches.createAndConnect({ projectId, name: "sdk connect", pooled: false }));
    },
    async finalize() {
        // The raw layer, one function per route, with the SDK's own waiting.
        const branch = await main();
        const s = await step("create", neon.snapshots.create({ projectId, branchId: branch.id, name: "raw" }, ready));
        const b = await step("restore", neon.snapshots.restore({ projectId, snapshotId: s.id,
            targetBranchId: branch.id }, ready));
        const done = await raw.finalizeRestoreBranch({ client: neon.client, path: { project_id: projectId, branch_id: b.id } });
        show("finalize", { data: done.data, error: done.error });
        await step("wait", neon.operations.waitFor({ operations: done.data.operations }));
        await step("default", neon.branches.getDefault({ projectId }));
    },
    async list() {
        waits.length = 0;
        await step("list", neon.snapshots.list({ projectId }));
        show("requests", { data: waits.length });
    },
    async create() {
        waits.length = 0;
        await step("create", neon.snapshots.create({ projectId, branchId: (await main()).id, name: process.argv[3] }, ready));
        show("requests", { data: waits.length });
    },
};

await steps[process.argv[2]]();
