"""The keeper: one small process per engine that outlives the agent.

It starts the engine, owns its log and its exit status, and ends its whole process tree. Standard
library only, no asyncio: it must start quickly, stay small and have little that can break.
`protocol` says what it reads, writes and speaks; `docs/adr/0003-keeper.md` says why.
"""
