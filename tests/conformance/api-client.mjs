// Calls of @neondatabase/api-client (axios) against the server in NEON_API_HOST.
// Each prints one JSON line: {"step", "status", "data"}.
import { createApiClient } from "@neondatabase/api-client";

const p = process.env.NEON_PROJECT_ID;
const neon = createApiClient({ apiKey: process.env.NEON_API_KEY, baseURL: process.env.NEON_API_HOST });

const step = async (name, promise) => {
    try {
        const { status, data } = await promise;
        console.log(JSON.stringify({ step: name, status, data: data ?? null }));
        return data;
    } catch (error) {
        const { status, data } = error.response ?? { status: error.code };
        console.log(JSON.stringify({ step: name, status, data: data ?? null }));
        return null;
    }
};
const settle = async (operations) => {
    for (const { id } of operations ?? [])
        while (!["finished", "skipped"].includes((await neon.getProjectOperation(p, id)).data.operation.status))
            await new Promise((resolve) => setTimeout(resolve, 20));
};

await step("project", neon.getProject(p));
const { branches } = await step("branches", neon.listProjectBranches({ projectId: p }));
const main = branches.find((b) => b.default);

const made = await step("create-snapshot", neon.createSnapshot({ projectId: p, branchId: main.id, name: "by axios now",
    expires_at: "2099-01-01T00:00:00.000Z" }));
await settle(made.operations);
await step("list-snapshots", neon.listSnapshots(p));
await step("update-snapshot", neon.updateSnapshot(p, made.snapshot.id, { snapshot: { name: "renamed" } }));

// As Neon's own examples do it: finalize at once, no name.
const restored = await step("restore-finalized", neon.restoreSnapshot({ projectId: p, snapshotId: made.snapshot.id },
    { target_branch_id: main.id, finalize_restore: true }));
await settle(restored.operations);
const preview = await step("restore-preview", neon.restoreSnapshot({ projectId: p, snapshotId: made.snapshot.id },
    { target_branch_id: restored.branch.id, finalize_restore: false }));
await settle(preview.operations);
const finalized = await step("finalize", neon.finalizeRestoreBranch(p, preview.branch.id, {}));
await settle(finalized.operations);
await step("branch", neon.getProjectBranch(p, preview.branch.id));

const branch = await step("create-branch", neon.createProjectBranch(p, { branch: { name: "axios" },
    endpoints: [{ type: "read_write" }] }));
await settle(branch.operations);
await step("rename-branch", neon.updateProjectBranch(p, branch.branch.id, { branch: { name: "axios 2" } }));
await step("connection-uri", neon.getConnectionUri({ projectId: p, branch_id: branch.branch.id, database_name: "neondb",
    role_name: "neondb_owner" }));
const endpoint = branch.endpoints[0].id;
await settle((await step("suspend", neon.suspendProjectEndpoint(p, endpoint)))?.operations);
await settle((await step("start", neon.startProjectEndpoint(p, endpoint)))?.operations);
await step("endpoints", neon.listProjectEndpoints(p));
const role = await step("create-role", neon.createProjectBranchRole(p, branch.branch.id, { role: { name: "axios_role" } }));
await settle(role.operations);
const database = await step("create-database", neon.createProjectBranchDatabase(p, branch.branch.id,
    { database: { name: "axios_db", owner_name: "axios_role" } }));
await settle(database.operations);
await step("reveal", neon.getProjectBranchRolePassword(p, branch.branch.id, "axios_role"));
await step("databases", neon.listProjectBranchDatabases(p, branch.branch.id));
await settle((await step("delete-branch", neon.deleteProjectBranch({ projectId: p, branchId: branch.branch.id })))?.operations);
await step("delete-branch-again", neon.deleteProjectBranch({ projectId: p, branchId: branch.branch.id }));

await step("schedule", neon.setSnapshotSchedule(p, preview.branch.id, { schedule: [{ frequency: "daily", hour: 3 }] }));
await step("schedule-get", neon.getSnapshotSchedule(p, preview.branch.id));
await step("operations", neon.listProjectOperations({ projectId: p, limit: 5 }));
await settle((await step("delete-snapshot", neon.deleteSnapshot(p, made.snapshot.id)))?.operations);
await step("me", neon.getCurrentUserInfo());
await step("organizations", neon.getCurrentUserOrganizations());
await step("auth", neon.getAuthDetails());
await step("not-found", neon.getProjectBranch(p, "br-no-such-00000000"));
