// A mobile app's stand-in on grpc-js: `node client.js drive|follow <address> <token> <trip> [vehicle]`.
// Prints one JSON document per message that it gets, and at the end how the stream ended.
'use strict';

const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const path = require('path');
const fs = require('fs');

const [, , role, address, token, tripId, vehicleId] = process.argv;
const INTERVAL_MS = 1100;
const POSITIONS = 3;

const descriptors = fs.readFileSync(path.join(__dirname, '..', '..', '..', 'gen', 'descriptors.binpb'));
const definition = protoLoader.loadFileDescriptorSetFromBuffer(descriptors, {
  longs: String,
  enums: String,
  oneofs: true,
});
const { LocationService } = grpc.loadPackageDefinition(definition).wayfare.location.v1;
const client = new LocationService(address, grpc.credentials.createInsecure(), { 'grpc.enable_http_proxy': 0 });
const metadata = new grpc.Metadata();
metadata.set('authorization', `Bearer ${token}`);

function print(document) {
  process.stdout.write(`${JSON.stringify(document)}\n`);
}

function moment() {
  const milliseconds = Date.now();
  return { seconds: Math.floor(milliseconds / 1000), nanos: (milliseconds % 1000) * 1e6 };
}

function report(stream) {
  stream.on('data', (message) => print(message));
  stream.on('error', () => {});
  stream.on('status', (status) => {
    print({ end: grpc.status[status.code], details: status.details });
    client.close();
  });
}

function drive() {
  const stream = client.StreamDriver(metadata);
  report(stream);
  let seq = 0;
  const send = (message) => stream.write({ seq: (seq += 1), ...message });
  stream.write({ hello: { vehicle_id: vehicleId, trip_id: tripId } });
  send({ status: { status: 'TRIP_STATUS_STARTED', capture_time: moment() } });
  const position = () => {
    send({ position: { location: { latitude: 53.4084 + seq / 10000, longitude: -2.9916 }, capture_time: moment() } });
    if (seq <= POSITIONS) {
      setTimeout(position, INTERVAL_MS);
      return;
    }
    send({ status: { status: 'TRIP_STATUS_ENDED', capture_time: moment() } });
    stream.write({ goodbye: {} });
    stream.end();
  };
  position();
}

if (role === 'drive') {
  drive();
} else {
  report(client.FollowTrip({ trip_id: tripId }, metadata));
}
