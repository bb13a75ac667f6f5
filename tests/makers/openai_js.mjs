// Writes the js_* states that tests/data/ holds beside those of ../shared/samples, with the real SDK and scripted models.
//   npm install @openai/agents@0.20.0 zod && node openai_js.mjs FOLDER      (in a folder that has node_modules)
import fs from 'node:fs';
import path from 'node:path';
import { Agent, applyPatchTool, hostedMcpTool, run, setTracingDisabled, shellTool, tool } from '@openai/agents';
import { ScriptedModel, assistantMessage, functionCall } from '@openai/agents/testing';
import { z } from 'zod';

const folder = process.argv[2];
setTracingDisabled(true);

const dropTable = tool({ name: 'drop_table', description: 'Drop a table', parameters: z.object({ name: z.string() }), needsApproval: true,
  execute: async ({ name }) => `Dropped ${name}.` });
const listTables = tool({ name: 'list_tables', description: 'List tables', parameters: z.object({}), execute: async () => 'users, logs' });
const call = (name, args, callId) => functionCall(name, args, { callId });
const model = (...steps) => new ScriptedModel(steps);
const asTool = (agent, toolName) => agent.asTool({ toolName, toolDescription: `Ask ${agent.name}` });
const save = (name, state) => fs.writeFileSync(path.join(folder, name), state.toString());

async function nested() {
  const first = new Agent({ name: 'First', tools: [dropTable, listTables], model: model(
    [call('list_tables', {}, 'call_first_list')], [call('drop_table', { name: 'users' }, 'call_first_drop')]) });
  const second = new Agent({ name: 'Second', tools: [dropTable], model: model([call('drop_table', { name: 'logs' }, 'call_second_drop')]) });
  const lead = new Agent({ name: 'Lead', tools: [asTool(first, 'ask_first'), asTool(second, 'ask_second')], model: model(
    [call('ask_first', { input: 'drop users' }, 'call_lead_1'), call('ask_second', { input: 'drop logs' }, 'call_lead_2')]) });
  const boss = new Agent({ name: 'Boss', tools: [asTool(lead, 'ask_lead'), dropTable], model: model(
    [call('ask_lead', { input: 'clean up' }, 'call_boss_1'), call('drop_table', { name: 'audit' }, 'call_boss_2')]) });
  const { state } = await run(boss, 'Clean up the database.');
  save('js_nested3_interrupted.json', state);
  for (const item of state.getInterruptions()) {
    if (item.rawItem.callId === 'call_first_drop') state.reject(item, { message: 'Keep the users' });
    if (item.rawItem.callId === 'call_boss_2') state.approve(item);
  }
  save('js_nested3_decided.json', state);
}

async function hosted() {
  const mcp = { type: 'mcp_approval_request', id: 'mcpr_1', name: 'create_issue', server_label: 'tracker', arguments: '{"title": "Drop it"}' };
  const agent = new Agent({ name: 'Operator', model: model([
    { type: 'hosted_tool_call', id: 'mcpr_1', name: 'mcp_approval_request', status: 'completed', providerData: mcp },
    { type: 'shell_call', id: 'sh_1', callId: 'call_shell', status: 'completed', action: { commands: ['rm -rf /var/lib/old'], timeoutMs: 1000 } },
    { type: 'apply_patch_call', id: 'ap_1', callId: 'call_patch', status: 'completed',
      operation: { type: 'update_file', path: 'schema.sql', diff: '@@\n-DROP TABLE users;\n+-- kept\n' } },
    call('drop_table', { name: 'users' }, 'call_function')]), tools: [
    dropTable, shellTool({ shell: { run: async () => ({ output: [] }) }, needsApproval: true }),
    applyPatchTool({ editor: { createFile: async () => {}, updateFile: async () => {}, deleteFile: async () => {} }, needsApproval: true }),
    hostedMcpTool({ serverLabel: 'tracker', serverUrl: 'https://mcp.invalid', requireApproval: 'always' })] });
  const { state } = await run(agent, 'Tidy up.');
  save('js_hosted_interrupted.json', state);
  for (const item of state.getInterruptions()) {
    if (item.rawItem.type === 'hosted_tool_call') state.reject(item, { message: 'Not on this tracker' });
    if (item.rawItem.type === 'shell_call') state.approve(item);
  }
  save('js_hosted_decided.json', state);
}

async function stages() {
  const agent = new Agent({ name: 'Cleaner', tools: [dropTable, listTables], model: model(
    [call('list_tables', {}, 'call_0')], [call('drop_table', { name: 'users' }, 'call_1')],
    [assistantMessage('users is gone; logs next.'), call('drop_table', { name: 'logs' }, 'call_2')], [assistantMessage('All done.')]) });
  let result = await run(agent, 'Drop every table, one by one.');
  for (const stage of [1, 2]) {
    save(`js_stages_${stage}.json`, result.state);
    for (const item of result.interruptions)
      if (stage === 1) result.state.approve(item); else result.state.reject(item, { message: 'Keep the logs' });
    result = await run(agent, result.state);
  }
  save('js_stages_3.json', result.state);
}

for (const make of [nested, hosted, stages]) await make();
