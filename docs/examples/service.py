"""A service that runs flows for its clients: a line in, a line out, never more than four lookups at once."""

import asyncio

from upwell import Runtime, flow, task


@task(tags=["lookup"], retries=2, timeout_seconds=1)
async def look_up(word: str) -> int:
    await asyncio.sleep(0.01)  # stands for a database
    return len(word)


@flow
async def measure(line: str) -> int:
    return sum(await look_up.map(line.split()))


async def serve(runtime: Runtime) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            letters = await runtime.call(measure, line.decode())
            writer.write(f"{letters} letters\n".encode())
            await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


async def ask(server: asyncio.Server, question: str) -> str:
    """A client."""
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(f"{question}\n".encode())
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode().strip()


async def main() -> None:
    async with Runtime(limits={"tag:lookup": 4}) as runtime, await serve(runtime) as server:
        questions = ["so long", "and thanks for all the fish"]
        print(await asyncio.gather(*(ask(server, question) for question in questions)))


if __name__ == "__main__":
    asyncio.run(main())
