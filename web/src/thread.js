// One of the engine's threads.

import { serveThread } from './engine.js';

self.onmessage = ({ data }) => serveThread(data, () => self.postMessage('ready'));
